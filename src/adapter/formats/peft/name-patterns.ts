// `rank_pattern`, `alpha_pattern`: settings of single modules by patterns over their names.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { PeftContext } from './peft-context.ts'
import { matchingKeys } from './python-regex.ts'

/** By module path: the value of the first pattern, in file order, that is a dotted suffix of it. */
export function firstMatches(
  context: PeftContext,
  field: string,
  patterns: ReadonlyMap<string, number>,
  paths: readonly string[],
): ReadonlyMap<string, number> {
  const found = new Map<string, number>()
  for (const [pattern, value] of patterns) {
    const wrap = { prefix: '^(?:.*\\.)?(?:', suffix: ')$' }
    for (const path of matchingKeys(pattern, wrap, paths, `${field}.${pattern}`, context.refuse)) {
      if (!found.has(path)) found.set(path, value)
    }
  }
  return found
}

/** Reads a pattern option; the result gives every module its pattern's value, else `fallback`. */
export function readPatterned(
  context: PeftContext,
  field: string,
  fallback: number,
): (modules: readonly ModuleInfo[]) => (module: ModuleInfo) => number {
  const patterns = context.config.numberMap(field)
  return (modules) => {
    const found = firstMatches(
      context,
      field,
      patterns,
      modules.map(({ path }) => path),
    )
    return ({ path }) => found.get(path) ?? fallback
  }
}
