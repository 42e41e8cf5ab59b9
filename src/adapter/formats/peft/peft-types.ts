// The tables of `peft_type` values. A type is one file here; a type without a row is refused by name.

import { compileAdalora } from './adalora.ts'
import { compileAdaptionPrompt } from './adaption-prompt.ts'
import { compileBeft } from './beft.ts'
import { compileBoft } from './boft.ts'
import { compileBottleneck } from './bottleneck.ts'
import { compileC3a } from './c3a.ts'
import { compileDeft } from './deft.ts'
import { compileDelora } from './delora.ts'
import { compileFourierft } from './fourierft.ts'
import { compileFrod } from './frod.ts'
import { compileGlora } from './glora.ts'
import { compileGralora } from './gralora.ts'
import { compileHira } from './hira.ts'
import { compileHra } from './hra.ts'
import { compileIa3 } from './ia3.ts'
import { compileLnTuning } from './ln-tuning.ts'
import { compileLoha } from './loha.ts'
import { compileLokr } from './lokr.ts'
import { compileLora } from './lora.ts'
import { compileBone, compileMiss } from './miss.ts'
import { compileLoraMoe, compileMola } from './moe-peft.ts'
import { compileOft } from './oft.ts'
import { compileOsf } from './osf.ts'
import { compilePeanut } from './peanut.ts'
import type { PeftContext, PeftScope } from './peft-context.ts'
import { compilePoly } from './poly.ts'
import {
  compileCartridge,
  compileCpt,
  compileMultitaskPromptTuning,
  compilePrefixTuning,
  compilePromptTuning,
  compilePTuning,
} from './prompt-learning.ts'
import { compilePromptTuningLora } from './prompt-tuning-lora.ts'
import { compileRandlora } from './randlora.ts'
import { compileRoad } from './road.ts'
import { compileShira } from './shira.ts'
import { compileSupertuning } from './supertuning.ts'
import { compileTinylora } from './tinylora.ts'
import { compileTrainableTokens } from './trainable-tokens.ts'
import { compileUnilora } from './unilora.ts'
import { compileVblora } from './vblora.ts'
import { compilePvera, compileVera } from './vera.ts'
import { compileWaveft } from './waveft.ts'

export type CompilePeftType = (context: PeftContext) => PeftScope

export const PEFT_TYPES: Readonly<Record<string, CompilePeftType>> = {
  ADALORA: compileAdalora,
  ADAPTION_PROMPT: compileAdaptionPrompt,
  BEFT: compileBeft,
  BOFT: compileBoft,
  BONE: compileBone,
  BOTTLENECK: compileBottleneck,
  C3A: compileC3a,
  CARTRIDGE: compileCartridge,
  CPT: compileCpt,
  DEFT: compileDeft,
  DELORA: compileDelora,
  FOURIERFT: compileFourierft,
  FROD: compileFrod,
  GLORA: compileGlora,
  GRALORA: compileGralora,
  HIRA: compileHira,
  HRA: compileHra,
  IA3: compileIa3,
  LN_TUNING: compileLnTuning,
  LOHA: compileLoha,
  LOKR: compileLokr,
  LORA: compileLora,
  LORAMOE: compileLoraMoe,
  MISS: compileMiss,
  MOLA: compileMola,
  MULTITASK_PROMPT_TUNING: compileMultitaskPromptTuning,
  OFT: compileOft,
  OSF: compileOsf,
  PEANUT: compilePeanut,
  POLY: compilePoly,
  PREFIX_TUNING: compilePrefixTuning,
  PROMPT_TUNING: compilePromptTuning,
  PROMPT_TUNING_LORA: compilePromptTuningLora,
  PVERA: compilePvera,
  P_TUNING: compilePTuning,
  RANDLORA: compileRandlora,
  ROAD: compileRoad,
  SHIRA: compileShira,
  SUPERTUNING: compileSupertuning,
  TINYLORA: compileTinylora,
  TRAINABLE_TOKENS: compileTrainableTokens,
  UNILORA: compileUnilora,
  VBLORA: compileVblora,
  VERA: compileVera,
  WAVEFT: compileWaveft,
}

/** Types of PEFT 0.21 and of its forks that cannot be served exactly, and why. */
export const REFUSED_PEFT_TYPES: Readonly<Record<string, string>> = {
  ADAMSS: 'the file does not say which outputs its subspaces are; they came from a clustering on the training machine',
  LILY: 'its router averages over all tokens of a batch, so that an answer would depend on the requests beside it',
  MIXLORA: 'its experts are whole feed-forward networks, mixed behind the non-linearity, which no primitive does',
  MMOELORAS:
    'its gate lies outside the modules and takes a task with every call; mix the experts for one task and export a LoRA',
  PROMPT_ROUTING: 'its prompt is chosen by a router over the whole input (SMoP)',
  PSOFT: 'its matrix acts between singular vectors of the base weight, whose signs are arbitrary; export it as a LoRA',
  SHADOW: 'it is a second transformer with a cache of its own beside the base model',
  XLORA: 'it runs the base model over every token before it mixes its adapters, with a second cache',
}
