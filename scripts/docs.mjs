// Rewrites the generated parts of docs/ and README.md from the built code: npm run docs.

import { readFileSync, writeFileSync } from 'node:fs'
import { PEFT_TYPES, REFUSED_PEFT_TYPES } from '../dist/adapter/formats/peft/peft-types.js'
import { GENERATED_PARTS, replaceGenerated } from '../dist/cli/docs-tables.js'
import { metricsTable } from '../dist/metrics/metrics-table.js'
import { adapterHubTable, methodTable, peftTypeTable, writerTable } from './peft-survey.mjs'

const kinds = () =>
  Object.keys(PEFT_TYPES)
    .map((kind) => `\`${kind}\``)
    .join(', ')

const refusedKinds = () =>
  Object.entries(REFUSED_PEFT_TYPES)
    .map(([kind, reason]) => `- \`${kind}\`: ${reason}`)
    .join('\n')

const parts = [
  ...GENERATED_PARTS,
  ['README.md', 'kinds', kinds],
  ['README.md', 'refused kinds', refusedKinds],
  ['docs/metrics.md', 'metrics', metricsTable],
  ['docs/peft.md', 'methods', methodTable],
  ['docs/peft.md', 'peft types', () => peftTypeTable(REFUSED_PEFT_TYPES)],
  ['docs/peft.md', 'AdapterHub', adapterHubTable],
  ['docs/peft.md', 'writers', writerTable],
]

for (const [page, name, render] of parts) {
  const path = new URL(`../${page}`, import.meta.url)
  const text = replaceGenerated(readFileSync(path, 'utf8'), name, render())
  if (text === null) throw new Error(`${page} has no markers for ${name}`)
  writeFileSync(path, text)
}
