// PEFT configs hold Python regular expressions. They come from whoever made the adapter, so they run under a time limit:
// a backtracking bomb must cost its own load and nothing else.

import { Script } from 'node:vm'
import type { Refuse } from './refuse.ts'

/** A real pattern over the module names of a large model takes under a millisecond. */
const MATCH_LIMIT_MS = 1000

const FILTER = new Script('keys.filter((key) => regex.test(key))')

/**
 * Keys that match `source`, a Python pattern. `field` is named when it cannot be used.
 * `prefix` and `suffix` are what the reference wraps around the pattern, in JavaScript's syntax.
 */
export function matchingKeys(
  source: string,
  wrap: { readonly prefix: string; readonly suffix: string },
  keys: readonly string[],
  field: string,
  refuse: Refuse,
): ReadonlySet<string> {
  const { flags, body } = fromPython(source)
  let regex: RegExp
  try {
    regex = new RegExp(`${wrap.prefix}${body}${wrap.suffix}`, flags)
  } catch (cause) {
    throw refuse(field, `the pattern ${JSON.stringify(source)} cannot be used (${(cause as Error).message})`)
  }
  try {
    const matched: string[] = FILTER.runInNewContext({ regex, keys }, { timeout: MATCH_LIMIT_MS })
    return new Set(matched)
  } catch {
    throw refuse(field, `the pattern ${JSON.stringify(source)} takes over ${MATCH_LIMIT_MS} ms to match; simplify it`)
  }
}

/** The few spellings that differ; whatever else Python alone knows is a syntax error in JavaScript, and so refused. */
function fromPython(source: string): { flags: string; body: string } {
  const inline = /^\(\?([ims]+)\)/.exec(source)
  const body = (inline === null ? source : source.slice(inline[0].length))
    .replace(/\(\?P</g, '(?<')
    .replace(/\(\?P=(\w+)\)/g, '\\k<$1>')
    .replace(/(\\\\)|\\A|\\Z/g, (found, escaped: string | undefined) => (escaped ? found : found === '\\A' ? '^' : '$'))
  return { flags: inline?.[1] ?? '', body }
}
