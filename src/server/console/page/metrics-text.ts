// Reads Prometheus text format 0.0.4: only the families asked for, since a server of many adapters has thousands of lines of others.

export interface Series {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g

/** Series by name; names without one are absent. */
export function parseMetrics(text: string, names: ReadonlySet<string>): ReadonlyMap<string, readonly Series[]> {
  const families = new Map<string, Series[]>()
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const name = line.slice(0, nameLength(line))
    if (!names.has(name)) continue
    const rest = line.slice(name.length)
    // The value follows the last brace: label values may hold blanks and braces.
    const labelsEnd = rest.lastIndexOf('}') + 1
    const value = Number.parseFloat(rest.slice(labelsEnd).trim())
    if (Number.isNaN(value)) continue
    const series = families.get(name)
    if (series === undefined) families.set(name, [{ labels: parseLabels(rest.slice(0, labelsEnd)), value }])
    else series.push({ labels: parseLabels(rest.slice(0, labelsEnd)), value })
  }
  return families
}

function nameLength(line: string): number {
  const end = line.search(/[{\s]/)
  return end === -1 ? line.length : end
}

function parseLabels(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name = '', value = '']) => [name, unescapeLabel(value)]))
}

function unescapeLabel(value: string): string {
  return value.replace(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped))
}
