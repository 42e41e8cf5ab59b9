// The primitive IR (docs/design.md, "Adapters"): every PEFT family compiles to a few of these at named sites.
// Types only. Arrays are float32, row-major, and never aliased with base weights; nothing here mutates the base model.
//
// One linear site evaluates, for one token row x (a slot nobody fills costs nothing):
//
//   u = x · inputScale                       vector, slot 'input-scale'
//   z = u · Wᵀ            or u · Rᵀ          base, or replace
//   z = z · factor                           vector, slot 'factor'        (DoRA magnitude over norm)
//   z = z + bias                             base bias, or vector, slot 'bias'
//   z = z + scale · B (A x)  (+ bias of B)   low-rank: reads the original x
//   z = z · outputScale                      vector, slot 'output-scale'
//   z = z + shift                            vector, slot 'shift'

import type { AdapterId } from '../core/ids.ts'
import type { LinearRole, NormRole } from '../model/decoder-spec.ts'

/**
 * Where a primitive acts, in canonical names of DecoderSpec, whatever the checkpoint calls or fuses them:
 * `layers.3.q`, `layers.3.preMlp`, `embed`, `positions`, `finalNorm`, `lmHead`.
 */
export type Site = `layers.${number}.${LinearRole | NormRole}` | 'embed' | 'positions' | 'finalNorm' | 'lmHead'

/** δ = scale · (B (A x) + biasB). At `embed`, A is [rank, vocab] and x a one-hot row. */
export interface LowRank {
  readonly kind: 'low-rank'
  readonly rank: number
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [out, rank]
  readonly scale: number
  readonly biasB: Float32Array | null // [out]
}

export type VectorSlot = 'input-scale' | 'factor' | 'bias' | 'output-scale' | 'shift'

/** An element-wise vector in one slot. `bias` replaces the base bias (or adds one where the base has none). */
export interface Vector {
  readonly kind: 'vector'
  readonly slot: VectorSlot
  readonly values: Float32Array // [in] for input-scale, else [out]
}

/** The whole parameter is the adapter's own: a linear [out, in], `embed` and `lmHead` [vocab, hidden], a norm weight [n]. */
export interface Replace {
  readonly kind: 'replace'
  readonly weight: Float32Array
  readonly shape: readonly number[]
}

/** Single rows of `embed` or `lmHead` are the adapter's own. */
export interface Rows {
  readonly kind: 'rows'
  readonly rowIds: Int32Array // [n], ascending
  readonly rows: Float32Array // [n, hidden]
}

export type Primitive = LowRank | Vector | Replace | Rows

/**
 * Leading positions of a sequence that belong to the adapter; the prompt starts behind them, at position `numTokens` (the shift
 * policy of HF PEFT). A soft prompt gives what enters the first layer and is computed like tokens; a prefix gives the keys and
 * values of every layer as the cache holds them, so nothing rotates, norms or scales them.
 */
export type VirtualTokens = SoftPrompt | Prefix

/** Prompt tuning (arXiv:2104.08691). Rows stand in for `embed(token) · embedScale`; learned positions are still added. */
export interface SoftPrompt {
  readonly kind: 'soft-prompt'
  readonly numTokens: number
  readonly rows: Float32Array // [numTokens, hidden]
}

/** Prefix tuning (arXiv:2101.00190). */
export interface Prefix {
  readonly kind: 'prefix'
  readonly numTokens: number
  readonly keys: readonly Float32Array[] // [numLayers][numTokens, numKvHeads * headDim]
  readonly values: readonly Float32Array[]
}

/** One generation of one adapter, ready for any backend. Crosses threads by transfer. */
export interface CompiledAdapter {
  readonly id: AdapterId
  readonly name: string
  /** HF `peft_type` or the format's own name, for listings and metrics. */
  readonly kind: string
  /** Hex digest of everything that can change an output. */
  readonly digest: string
  /** Hex digest of what can change keys or values; '' when nothing does, and the base's prefix cache is shared. */
  readonly kvDigest: string
  /** Largest rank over sites; 0 without low-rank sites. */
  readonly maxRank: number
  readonly numBytes: number
  readonly sites: ReadonlyMap<Site, readonly Primitive[]>
  readonly virtualTokens: VirtualTokens | null
  /** Activated LoRA: acts from the last occurrence of these ids in the prompt, and nowhere without one. Null = everywhere. */
  readonly invocationTokenIds: readonly number[] | null
}
