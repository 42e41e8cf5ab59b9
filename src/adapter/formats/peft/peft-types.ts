// The table of `peft_type` values. A type is one file here; a type without a row is refused by name.

import { compileAdalora } from './adalora.ts'
import { compileIa3 } from './ia3.ts'
import { compileLora } from './lora.ts'
import type { PeftContext, PeftScope } from './peft-context.ts'
import { compileTrainableTokens } from './trainable-tokens.ts'

export type CompilePeftType = (context: PeftContext) => PeftScope

export const PEFT_TYPES: Readonly<Record<string, CompilePeftType>> = {
  ADALORA: compileAdalora,
  IA3: compileIa3,
  LORA: compileLora,
  TRAINABLE_TOKENS: compileTrainableTokens,
}
