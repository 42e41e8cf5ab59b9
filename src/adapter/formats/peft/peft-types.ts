// The table of `peft_type` values. A type is one file here; a type without a row is refused by name.

import { compileAdalora } from './adalora.ts'
import { compileDeft } from './deft.ts'
import { compileDelora } from './delora.ts'
import { compileGralora } from './gralora.ts'
import { compileHra } from './hra.ts'
import { compileIa3 } from './ia3.ts'
import { compileLnTuning } from './ln-tuning.ts'
import { compileLoha } from './loha.ts'
import { compileLokr } from './lokr.ts'
import { compileLora } from './lora.ts'
import { compileMiss } from './miss.ts'
import { compileOft } from './oft.ts'
import { compilePeanut } from './peanut.ts'
import type { PeftContext, PeftScope } from './peft-context.ts'
import {
  compileCartridge,
  compileCpt,
  compileMultitaskPromptTuning,
  compilePrefixTuning,
  compilePromptTuning,
  compilePTuning,
} from './prompt-learning.ts'
import { compileTinylora } from './tinylora.ts'
import { compileTrainableTokens } from './trainable-tokens.ts'
import { compileVblora } from './vblora.ts'
import { compilePvera, compileVera } from './vera.ts'

export type CompilePeftType = (context: PeftContext) => PeftScope

export const PEFT_TYPES: Readonly<Record<string, CompilePeftType>> = {
  ADALORA: compileAdalora,
  CARTRIDGE: compileCartridge,
  CPT: compileCpt,
  DEFT: compileDeft,
  DELORA: compileDelora,
  GRALORA: compileGralora,
  HRA: compileHra,
  IA3: compileIa3,
  LN_TUNING: compileLnTuning,
  LOHA: compileLoha,
  LOKR: compileLokr,
  LORA: compileLora,
  MISS: compileMiss,
  MULTITASK_PROMPT_TUNING: compileMultitaskPromptTuning,
  OFT: compileOft,
  PEANUT: compilePeanut,
  PREFIX_TUNING: compilePrefixTuning,
  PROMPT_TUNING: compilePromptTuning,
  PVERA: compilePvera,
  P_TUNING: compilePTuning,
  TINYLORA: compileTinylora,
  TRAINABLE_TOKENS: compileTrainableTokens,
  VBLORA: compileVblora,
  VERA: compileVera,
}
