// docs/metrics.md as a table: what /metrics promises. The generated part is tied to the registry by its own test.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './server-process.ts'

/** Labels of every series name that a scrape has, with `le` on buckets. */
export function documentedSeries(): ReadonlyMap<string, ReadonlySet<string>> {
  const series = new Map<string, ReadonlySet<string>>()
  for (const line of readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8').split('\n')) {
    const [, name = '', type = '', labelCell = ''] = /^\| `([\w:]+)` \| (\w+) \| (.*?) \|/.exec(line) ?? []
    if (name === '') continue
    const labels = [...labelCell.matchAll(/`(\w+)`/g)].map(([, label = '']) => label)
    if (type === 'histogram') series.set(`${name}_bucket`, new Set([...labels, 'le']))
    if (type === 'histogram' || type === 'summary') {
      series.set(`${name}_sum`, new Set(labels))
      series.set(`${name}_count`, new Set(labels))
    } else series.set(name, new Set(labels))
  }
  return series
}
