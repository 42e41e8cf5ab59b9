// The primitive IR (docs/design.md, "Adapters"): every PEFT family compiles to a few of these at named sites.
// Types only. Arrays are float32, row-major, and never aliased with base weights; nothing here mutates the base model.
//
// One linear site evaluates, for one token row x (a slot nobody fills costs nothing):
//
//   x = x + A(x)                             bottleneck, input 'site-input'
//   u = x · R                                rotate
//   u = u · inputScale                       vector, slot 'input-scale'
//   z = u · Wᵀ            or u · Rᵀ          base, or replace
//   z = z · factor                           vector, slot 'factor'        (DoRA magnitude over norm)
//   z = z + bias                             base bias, or vector, slot 'bias'
//   z = z + Σ δ(x)                           low-rank, kron, circulant, sparse, dense, bottleneck 'site-beside', routed: read x
//   z = z · outputScale                      vector, slot 'output-scale'
//   z = pair-rotated z                       pair-rotate
//   z = z + shift                            vector, slot 'shift'
//   z = z + A(z)                             bottleneck, input 'site-output'
//
// A layer has hooks beside its linears (f: what the sublayer adds, res: the stream before it, n: its normed input):
//
//   attention     heads = heads + gate · attention(q, own keys, own values)              side-attention, before `o`
//   attnOut, mlpOut   f = f + A(f + res | f | res | n), in the order listed               bottleneck, routed
//   blockOut      h = h + Rᵀ(...)                                                        stream-edit

import type { AdapterId } from '../core/ids.ts'
import type { PromptCoupling } from '../core/prompt-coupling.ts'
import type { Activation, LinearRole, NormRole } from '../model/decoder-spec.ts'

export type Hook = 'attention' | 'attnOut' | 'mlpOut' | 'blockOut'

/**
 * Where a primitive acts, in canonical names of DecoderSpec, whatever the checkpoint calls or fuses them:
 * `layers.3.q`, `layers.3.preMlp`, `layers.3.mlpOut`, `embed`, `positions`, `finalNorm`, `lmHead`.
 */
export type Site = `layers.${number}.${LinearRole | NormRole | Hook}` | 'embed' | 'positions' | 'finalNorm' | 'lmHead'

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

/** δ = scale · kron(left, right) x: with X = x as [b, e], vec(left X rightᵀ) (LoKr, arXiv:2309.14859). */
export interface Kron {
  readonly kind: 'kron'
  readonly leftShape: readonly [a: number, b: number]
  readonly rightShape: readonly [c: number, e: number] // out = a·c, in = b·e
  readonly left: Float32Array // [a, b]
  readonly right: Float32Array // [c, e]
  readonly scale: number
}

/** δ[i·s + k] = Σ_j Σ_t kernel[i, j, (t - k) mod s] · x[j·s + t], s = blockSize (C3A, arXiv:2407.19342); any divisor is in the kernel. */
export interface Circulant {
  readonly kind: 'circulant'
  readonly blockSize: number
  readonly kernel: Float32Array // [out / blockSize, in / blockSize, blockSize]
}

/** δ[o] = Σ values[k] · x[columns[k]] over k in [rowStarts[o], rowStarts[o + 1]): entries added to W, no duplicates. */
export interface Sparse {
  readonly kind: 'sparse'
  readonly rowStarts: Int32Array // [out + 1]
  readonly columns: Int32Array // [nnz]
  readonly values: Float32Array // [nnz]
}

/** δ = ΔW x over the rows named, or over all. */
export interface Dense {
  readonly kind: 'dense'
  readonly delta: Float32Array // [rows, in]
  readonly rowIds: Int32Array | null // [rows], ascending; null = every output row
}

/** Block j of u is (block j of x) · blocks[j], a row vector times a matrix (OFT, arXiv:2306.07280; BOFT, arXiv:2311.06243). */
export interface Rotate {
  readonly kind: 'rotate'
  readonly blockSize: number
  readonly blocks: Float32Array // [in / blockSize, blockSize, blockSize]; one block [blockSize, blockSize] is shared by all
}

/** z'[j] = cos[j] z[j] - sin[j] z[j + half] in the lower half of each group of 2·half outputs, + sin[j] z[j - half] in the upper (RoAd, arXiv:2409.00119). */
export interface PairRotate {
  readonly kind: 'pair-rotate'
  readonly half: number
  readonly cos: Float32Array // [out]
  readonly sin: Float32Array // [out]
}

export interface LayerNormWeights {
  readonly weight: Float32Array
  readonly bias: Float32Array
  readonly eps: number
}

/**
 * σ(weight · x + bias) averaged over the rows of one call: over the whole prompt while it is read, over the one row of a decode
 * step after it. An adapter with one says `promptCoupling: 'whole'`.
 */
export interface PooledGate {
  readonly weight: Float32Array // [in]
  readonly bias: number
}

export type BottleneckActivation = Activation | 'tanh' | 'leaky-relu' | 'sigmoid' | 'identity'

/**
 * A(x) = normAfter(gate · scale ⊙ (up · act(down · normBefore(x) + downBias) + upBias)) (arXiv:1902.00751). At hooks: `sum` reads f + res,
 * `sublayer` f, `residual` res, `normed` n. At linears: `site-input`, `site-beside` (reads x, adds to z), `site-output`.
 */
export interface Bottleneck {
  readonly kind: 'bottleneck'
  readonly input: 'sum' | 'sublayer' | 'residual' | 'normed' | 'site-input' | 'site-beside' | 'site-output'
  readonly size: number
  readonly down: Float32Array // [size, in]
  readonly downBias: Float32Array | null // [size]
  readonly up: Float32Array // [out, size]
  readonly upBias: Float32Array | null // [out]
  readonly activation: BottleneckActivation
  /** One value, or one an output. */
  readonly scale: number | Float32Array
  readonly normBefore: LayerNormWeights | null
  readonly normAfter: LayerNormWeights | null
  /** `normAfter` sees A(x) + f and its result replaces f, in place of f + normAfter(A(x)). */
  readonly normsSublayerSum: boolean
  readonly gate: PooledGate | null
}

/** A low-rank update whose scale is a pooled gate (AdapterHub `use_gating`). */
export interface GatedLowRank {
  readonly kind: 'gated-low-rank'
  readonly rank: number
  readonly a: Float32Array // [rank, in]
  readonly b: Float32Array // [out, rank]
  readonly gate: PooledGate
}

/** What mixes the experts of one token. Softmax in float32; ties go to the lower index. */
export type Gate =
  /** p = softmax((weight x + bias) / temperature); the `topK` largest kept (null = all), divided by their sum when `renormalize`. */
  | {
      readonly kind: 'linear'
      readonly weight: Float32Array // [numExperts, in]
      readonly bias: Float32Array | null // [numExperts]
      readonly temperature: number
      readonly topK: number | null
      readonly renormalize: boolean
    }
  /** p = softmax(the `topK` largest |prototypes x| / temperature) (Arrow, arXiv:2405.11157). */
  | { readonly kind: 'prototype'; readonly prototypes: Float32Array; readonly temperature: number; readonly topK: number }
  /** p = softmax_i((query s + queryBias) · (key A_i + keyBias)), Σ p_i value A_i with s the experts' input (AdapterFusion, arXiv:2005.00247). */
  | {
      readonly kind: 'attention'
      readonly query: Float32Array // [n, n]
      readonly queryBias: Float32Array
      readonly key: Float32Array // [n, n]
      readonly keyBias: Float32Array
      readonly value: Float32Array // [n, n]
    }
  | { readonly kind: 'constant'; readonly weights: Float32Array } // [numExperts]

/**
 * Σ_e p_e · expert_e. Experts are low-rank updates (added to z), output-scale vectors (z = z ⊙ Σ p_e l_e, MoV) or bottlenecks (at a
 * hook: f = sublayerWeight · f + Σ p_e A_e). All experts of one mixture are of one kind.
 */
export interface Routed {
  readonly kind: 'routed'
  readonly experts: readonly LowRank[] | readonly Vector[] | readonly Bottleneck[]
  readonly gate: Gate
  readonly sublayerWeight: number
}

/** h = h + rotationᵀ(act(source h + bias) - rotation h) at the first and last tokens of the prompt (LoReFT, arXiv:2404.03592). */
export interface StreamEdit {
  readonly kind: 'stream-edit'
  readonly rank: number
  readonly source: Float32Array // [rank, hidden]
  readonly sourceBias: Float32Array // [rank]
  readonly rotation: Float32Array // [rank, hidden]
  /** False: DiReFT, without `- rotation h`. */
  readonly subtractsProjection: boolean
  readonly activation: BottleneckActivation
  readonly scope: PromptScope
}

/** Positions of the prompt, counted from its own first token; generated tokens are never in scope. */
export interface PromptScope {
  readonly numFirst: number
  readonly numLast: number
  /** Of a prompt too short for either, that end is at most half of it, rounded down (pyreft). */
  readonly isCappedAtHalf?: true
}

/** heads = heads + gate · softmax(q keysᵀ · scale) values, a softmax of its own, unmasked (LLaMA-Adapter, arXiv:2303.16199). */
export interface SideAttention {
  readonly kind: 'side-attention'
  readonly numTokens: number
  readonly keys: Float32Array // [numTokens, numKvHeads * headDim], unrotated
  readonly values: Float32Array // [numTokens, numKvHeads * headDim]
  readonly gate: number
}

/** y1 = x1 + F(x2), y2 = x2 + G(y1) on the halves of an embedding row (NICE; MAD-X, arXiv:2005.00052). Site `embed`. */
export interface Coupling {
  readonly kind: 'coupling'
  readonly f: HalfMlp
  readonly g: HalfMlp
}

/** up · act(down x + downBias) + upBias on half a row. */
export interface HalfMlp {
  readonly size: number
  readonly down: Float32Array // [size, hidden / 2]
  readonly downBias: Float32Array
  readonly up: Float32Array // [hidden / 2, size]
  readonly upBias: Float32Array
  readonly activation: BottleneckActivation
}

/** Row p is added to the embedding of the prompt's own token p; later tokens get nothing (DePT, arXiv:2309.05173). Site `embed`. */
export interface PositionRows {
  readonly kind: 'position-rows'
  readonly rows: Float32Array // [numPositions, hidden]
}

export type Primitive =
  | LowRank
  | Vector
  | Replace
  | Rows
  | Kron
  | Circulant
  | Sparse
  | Dense
  | Rotate
  | PairRotate
  | Bottleneck
  | GatedLowRank
  | Routed
  | StreamEdit
  | SideAttention
  | Coupling
  | PositionRows

/**
 * Leading positions of a sequence that belong to the adapter; the prompt starts behind them. A soft prompt gives what enters the first
 * layer and is computed like tokens; a prefix gives the keys and values of every layer as the cache holds them, so nothing rotates,
 * norms or scales them.
 */
export type VirtualTokens = SoftPrompt | Prefix

/** Prompt tuning (arXiv:2104.08691). Rows stand in for `embed(token) · embedScale`; learned positions are still added. */
export interface SoftPrompt {
  readonly kind: 'soft-prompt'
  readonly numTokens: number
  readonly rows: Float32Array // [numTokens, hidden]
  /** Added to the same rows at the input of each layer (prefix propagation, arXiv:2305.12086); null = nothing. */
  readonly layerRows: readonly Float32Array[] | null // [numLayers][numTokens, hidden]
}

/** Prefix tuning (arXiv:2101.00190). */
export interface Prefix {
  readonly kind: 'prefix'
  readonly numTokens: number
  readonly keys: readonly Float32Array[] // [numLayers][numTokens, numKvHeads * headDim]
  readonly values: readonly Float32Array[]
  /**
   * `shift` (HF PEFT): the first real token has position numTokens, and a sliding window passes over the prefix. `no-shift` (AdapterHub): it
   * has position 0, and the prefix stays visible from everywhere.
   */
  readonly positions: 'shift' | 'no-shift'
  /** σ(gate · normed input of the layer), averaged like a PooledGate, scales keys and values of its layer; null = no gates. */
  readonly gates: readonly { readonly keys: PooledGate; readonly values: PooledGate }[] | null
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
  readonly promptCoupling: PromptCoupling
  /** Activated LoRA: acts from the last occurrence of these ids in the prompt, and nowhere without one. Null = everywhere. */
  readonly invocationTokenIds: readonly number[] | null
}
