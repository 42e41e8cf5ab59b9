// The rank in the config and in the file.

import { show } from './config-fields.ts'
import type { PeftContext } from './peft-context.ts'

export function checkRank({ refuse }: Pick<PeftContext, 'refuse'>, field: string, rank: number): number {
  if (!Number.isInteger(rank) || rank < 1) throw refuse(field, `${show(rank)} is not a rank; it must be a positive integer`)
  return rank
}

/** A required config key that is a positive integer. */
export function readSize(context: PeftContext, field: string): number {
  return checkRank(context, field, context.config.number(field))
}

/** The rank shows in the tensor, but the scale depends on the config's: where they disagree neither can be trusted. */
export function checkStoredRank({ tensors, refuse }: PeftContext, key: string, rank: number, field = 'r'): void {
  const stored = tensors.leadingSize(key)
  if (stored !== null && stored !== rank)
    throw refuse(field, `the config gives ${key} rank ${rank}, the file has rank ${stored}`)
}
