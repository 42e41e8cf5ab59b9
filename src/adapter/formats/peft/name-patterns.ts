// `rank_pattern`, `alpha_pattern`: settings of single modules by patterns over their names.

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { PeftContext } from './peft-context.ts'
import { matchingKeys } from './python-regex.ts'

interface Wrap {
  readonly prefix: string
  readonly suffix: string
}

/** A dotted suffix of the path, or the whole. */
const DOTTED_SUFFIX: Wrap = { prefix: '^(?:.*\\.)?(?:', suffix: ')$' }

/** As some types have it: the pattern stands bare in the expression, so that one with `|` falls apart into two. */
const BARE_SUFFIX: Wrap = { prefix: '^(?:.*\\.', suffix: '$)' }

/** By module path: the value of the first pattern, in file order, that is a dotted suffix of it. */
export function firstMatches(
  context: PeftContext,
  field: string,
  patterns: ReadonlyMap<string, number>,
  paths: readonly string[],
  wrap = DOTTED_SUFFIX,
): ReadonlyMap<string, number> {
  const found = new Map<string, number>()
  for (const [pattern, value] of patterns) {
    for (const path of matchingKeys(pattern, wrap, paths, `${field}.${pattern}`, context.refuse)) {
      if (!found.has(path)) found.set(path, value)
    }
  }
  return found
}

type ValueOf = (module: ModuleInfo) => number

/** Reads a pattern option; the result gives every module its pattern's value, else `fallback`. */
export function readPatterned(
  context: PeftContext,
  field: string,
  fallback: number,
): (modules: readonly ModuleInfo[]) => ValueOf {
  const patterns = context.config.numberMap(field)
  return (modules) => {
    const found = firstMatches(context, field, patterns, pathsOf(modules))
    return ({ path }) => found.get(path) ?? fallback
  }
}

/** The same for the types that put the pattern bare into their expression; a whole path counts when no pattern matches. */
export function readBarePatterned(
  context: PeftContext,
  field: string,
  fallback: number,
): (modules: readonly ModuleInfo[]) => ValueOf {
  const patterns = context.config.numberMap(field)
  return (modules) => {
    const found = firstMatches(context, field, patterns, pathsOf(modules), BARE_SUFFIX)
    return ({ path }) => found.get(path) ?? patterns.get(path) ?? fallback
  }
}

function pathsOf(modules: readonly ModuleInfo[]): readonly string[] {
  return modules.map(({ path }) => path)
}
