// How an adapter file's module paths (names of the HF implementation) meet canonical sites. Filled by architectures/*.
//
//   model.layers.0.self_attn.qkv_proj  ->  rows   0..63  of it are site layers.0.q   (Phi-3 fuses, the spec never does)
//                                          rows  64..95               layers.0.k
//                                          rows  96..127              layers.0.v

export interface ModulePart {
  /** Canonical name as in DecoderSpec: `layers.0.q`, `embed`, `finalNorm`, `lmHead`. */
  readonly site: string
  /** Output rows [rowStart, rowEnd) of the HF module that are this site. */
  readonly rowStart: number
  readonly rowEnd: number
}

export interface ModuleInfo {
  /** Path in the HF causal-LM class, e.g. `model.layers.0.self_attn.q_proj`. */
  readonly path: string
  readonly kind: 'linear' | 'norm' | 'embedding' | 'head'
  /** Linear and head: [out, in]. Embedding: [vocab, hidden]. Norm: out = width, in = 1. */
  readonly outFeatures: number
  readonly inFeatures: number
  /** GPT-2 Conv1D keeps its weight [in, out]; adapters on it are transposed accordingly. */
  readonly isConv1d: boolean
  readonly hasBias: boolean
  readonly parts: readonly ModulePart[]
  /** Layer index, or null outside the layers. */
  readonly layer: number | null
  /** Set where an adapter cannot target this module yet; says why (expert linears). */
  readonly refusal: string | null
}

/** By HF path, in module order. */
export type ModuleMap = ReadonlyMap<string, ModuleInfo>
