// A decoder described declaratively, so that a backend is one interpreter of a spec and not a model zoo.
// Adding an architecture is one file in architectures/ that fills this in and maps checkpoint names to canonical ones.
//
//   h = embed(token) · embedScale (+ positions[pos])
//   per layer:
//     n = preAttn(h)                        a missing norm is the identity
//     q, k, v = linear(n); qNorm, kNorm; rotate(q, k)
//     a = o(attention(q, k, v))
//     h = h + postAttn(a)
//     n = preMlp(h)
//     h = h + postMlp(mlp(n))
//   logits = softcap(lmHead(finalNorm(h)))

export type LinearRole = 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down'

export type NormRole = 'preAttn' | 'postAttn' | 'preMlp' | 'postMlp' | 'qNorm' | 'kNorm'

export type Activation = 'silu' | 'gelu' | 'gelu-tanh' | 'relu'

export interface NormSpec {
  readonly kind: 'rms' | 'layer'
  readonly eps: number
  /** Gemma multiplies by (1 + weight). Weights stay as stored; the backend adds this. */
  readonly weightOffset: 0 | 1
}

/** Angles of position p and pair i are p · inverseFrequencies(p)[i]; see rope.ts. */
export interface RopeSpec {
  /** Leading dims of each head that rotate, in halves: i pairs with i + rotaryDim / 2. */
  readonly rotaryDim: number
  readonly theta: number
  readonly scaling: RopeScaling | null
}

export type RopeScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  | {
      readonly kind: 'llama3'
      readonly factor: number
      readonly lowFreqFactor: number
      readonly highFreqFactor: number
      readonly originalMaxPositions: number
    }
  | { readonly kind: 'dynamic'; readonly factor: number; readonly originalMaxPositions: number }

export interface LayerSpec {
  /** Keys visible to a token, itself included; null = all. */
  readonly slidingWindow: number | null
  /** Null = no rotation (learned positions). */
  readonly rope: RopeSpec | null
  readonly mlp: MlpSpec
}

export type MlpSpec =
  /** down(act(gate x) * up x) */
  | { readonly kind: 'gated'; readonly activation: Activation; readonly intermediateSize: number }
  /** down(act(up x)) */
  | { readonly kind: 'plain'; readonly activation: Activation; readonly intermediateSize: number }
  /** Sum over the router's top experts of gated MLPs; sites `experts.E.{gate,up,down}` exist as weights only. */
  | {
      readonly kind: 'experts'
      readonly activation: Activation
      readonly intermediateSize: number
      readonly numExperts: number
      readonly numExpertsPerToken: number
      /** Softmax over all experts, then the kept probabilities divided by their sum. */
      readonly renormalize: boolean
    }

export interface DecoderSpec {
  /** HF `model_type`. */
  readonly modelType: string
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  /** Never derived by division: Gemma and Qwen3 differ. */
  readonly headDim: number
  readonly maxPositions: number
  readonly layers: readonly LayerSpec[]
  readonly norm: NormSpec
  /** Norms each layer has. `qNorm`/`kNorm` width tells the kind: headDim = per head (Qwen3), else over the whole row (OLMo 2). */
  readonly norms: ReadonlySet<NormRole>
  readonly qkNorm: 'none' | 'head' | 'row'
  /** Softmax scale, usually headDim ** -0.5. */
  readonly attentionScale: number
  /** cap · tanh(score / cap) before the mask; null = off. */
  readonly attentionSoftcap: number | null
  readonly finalSoftcap: number | null
  readonly embedScale: number
  readonly learnedPositions: boolean
  readonly tiedHead: boolean
}

/**
 * Canonical parameter names. Linear weights are [out, in] whatever the checkpoint stores:
 * `embed`, `positions`, `layers.0.preAttn`, `layers.0.q`, `layers.0.q.bias`, `layers.0.router`,
 * `layers.0.experts.3.gate`, `finalNorm`, `finalNorm.bias`, `lmHead` (absent when tied).
 */
export type ParameterName = string

export type TensorDtype = 'F32' | 'F16' | 'BF16'

/** Where a parameter's bytes are. Rows are contiguous in the file, so a slice of a fused tensor is again such a view. */
export interface TensorRef {
  readonly file: string
  readonly byteOffset: number
  readonly dtype: TensorDtype
  /** Shape as stored in the file at `byteOffset`. */
  readonly shape: readonly number[]
  /** Stored [in, out] (GPT-2 Conv1D): read, then transpose to the canonical [out, in]. */
  readonly isTransposed: boolean
  /** Canonical rows [start, end) of a transposed tensor that are this parameter, since they are not contiguous; null = all. */
  readonly transposedRows: readonly [start: number, end: number] | null
}
