// What a PromQL expression asks for, as far as ours and vLLM's boards need: names of series, labels matched, labels grouped by.

export interface PromqlNames {
  /** Series names as they are scraped: `…_bucket`, `…_sum`, `…_count` for histograms. */
  readonly series: readonly { readonly name: string; readonly labels: readonly string[] }[]
  /** Labels of by, on, and group_left. */
  readonly grouping: readonly string[]
}

const KEYWORDS = new Set([
  'and',
  'or',
  'unless',
  'by',
  'on',
  'without',
  'ignoring',
  'group_left',
  'group_right',
  'bool',
  'offset',
])

/** A reader of the subset: no label values that hold braces, no names in strings. */
export function promqlNames(expression: string): PromqlNames {
  const grouping: string[] = []
  const withoutGroups = expression.replace(
    /\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)/g,
    (_, labels: string) => {
      grouping.push(
        ...labels
          .split(',')
          .map((label) => label.trim())
          .filter((label) => label !== ''),
      )
      return ' '
    },
  )
  const series: { name: string; labels: string[] }[] = []
  const rest = withoutGroups.replace(/\[[^\]]*\]/g, ' ')
  for (const match of rest.matchAll(/([A-Za-z_:][\w:]*)\s*(\(|\{[^}]*\})?/g)) {
    const [, name = '', after = ''] = match
    if (after === '(' || KEYWORDS.has(name)) continue
    series.push({ name, labels: [...after.matchAll(/([A-Za-z_]\w*)\s*(?:=~|!~|!=|=)/g)].map(([, label = '']) => label) })
  }
  return { series, grouping }
}
