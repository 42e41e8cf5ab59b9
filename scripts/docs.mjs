// Rewrites the generated parts of docs/ from the built code: npm run docs.

import { readFileSync, writeFileSync } from 'node:fs'
import { GENERATED_PARTS, replaceGenerated } from '../dist/cli/docs-tables.js'

for (const [page, name, render] of GENERATED_PARTS) {
  const path = new URL(`../${page}`, import.meta.url)
  const text = replaceGenerated(readFileSync(path, 'utf8'), name, render())
  if (text === null) throw new Error(`${page} has no markers for ${name}`)
  writeFileSync(path, text)
}
