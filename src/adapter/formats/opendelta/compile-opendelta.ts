// Delta modules of OpenDelta (arXiv:2207.03119): `config.json` with `delta_type`, and `pytorch_model.bin` with the modules it hung into the
// model, named after where they hang: `model.layers.0.self_attn.q_proj.lora.lora_A`.

import type { ModelSource } from '../../../model/model-source.ts'
import type { VirtualTokens } from '../../primitive.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { ConfigFields, show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import { type TensorNaming, TensorSet } from '../peft/tensor-set.ts'
import { SiteBuilder } from '../site-builder.ts'
import { compileAdapters, compileLowRankAdapters, compileParallelAdapters } from './bottlenecks.ts'
import type { DeltaContext } from './delta-context.ts'
import { compileBitfit, compileLora, compileSoftPrompt } from './deltas.ts'

/** A directory of OpenDelta (https://github.com/thunlp/OpenDelta). */
export interface OpenDeltaDirectory {
  readonly format: 'opendelta'
  readonly config: Readonly<Record<string, unknown>>
  readonly weightsPath: string
}

const TYPES: Readonly<Record<string, (context: DeltaContext) => VirtualTokens | null>> = {
  adapter: compileAdapters,
  bitfit: compileBitfit,
  lora: compileLora,
  low_rank_adapter: compileLowRankAdapters,
  parallel_adapter: compileParallelAdapters,
  soft_prompt: compileSoftPrompt,
}

const REFUSED_TYPES: Readonly<Record<string, string>> = {
  compacter: 'its rule may be shared with parameters the file leaves out; write it in the native format',
  prefix: 'the library has no attention of a decoder of this kind to hang a prefix into; use a prefix of HF PEFT',
}

const INERT_KEYS = [
  'backbone_checkpoint_name',
  'backbone_class',
  'backbone_hash',
  'backend',
  'common_structure',
  'delta_type',
  'opendelta_version',
  'transformers_version',
  'unfrozen_modules',
]

const OWN_NAMES: TensorNaming = { keyOf: (name) => name, nameOf: (key) => key }

/** Throws ADAPTER_REFUSED naming the config key or tensor at fault, or TORCH_FILE_INVALID. */
export function compileOpenDelta(
  { config: raw, weightsPath }: OpenDeltaDirectory,
  model: ModelSource,
  refuse: Refuse,
): CompiledSites {
  const type = String(raw['delta_type'])
  const compile = Object.hasOwn(TYPES, type) ? TYPES[type] : undefined
  if (compile === undefined) {
    const why = Object.hasOwn(REFUSED_TYPES, type) ? `: ${REFUSED_TYPES[type]}` : ''
    throw refuse('delta_type', `${show(type)} is not served${why}; known are ${Object.keys(TYPES).join(', ')}`)
  }
  const config = new ConfigFields(raw, refuse)
  config.ignore(INERT_KEYS)
  const sites = new SiteBuilder()
  const tensors = new TensorSet(weightsPath, refuse, OWN_NAMES)
  const virtualTokens = compile({ model, config, tensors, sites, refuse })
  config.finish()
  tensors.finish()
  return { kind: `opendelta/${type}`, sites: sites.build(), invocationTokenIds: null, virtualTokens, warnings: [] }
}
