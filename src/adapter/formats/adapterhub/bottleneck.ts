// Bottlenecks at the hooks behind attention and MLP: sequential (Houlsby, arXiv:1902.00751; Pfeiffer, arXiv:2005.00247), parallel
// (arXiv:2110.04366), Compacter (arXiv:2106.04647), each with its norms, scale and gate.

import type { Bottleneck, LayerNormWeights, PooledGate, Site } from '../../primitive.ts'
import { show } from '../peft/config-fields.ts'
import { readActivation } from './activation.ts'
import { adaptedLayers, type HubContext } from './hub-context.ts'
import { compileInvertible } from './invertible.ts'
import { openProjections } from './projection.ts'

/** torch's default, which the library leaves as it is. */
const LAYER_NORM_EPS = 1e-5

/** Hook modules of the library's Llama, the config key that asks for them, and where they act. */
const HOOKS = [
  { key: 'mh_adapter', module: 'attention_adapters', hook: 'attnOut' },
  { key: 'output_adapter', module: 'output_adapters', hook: 'mlpOut' },
] as const

const TRAINING_KEYS = [
  'dropout',
  'hypercomplex_nonlinearity',
  'init_weights',
  'init_weights_seed',
  'learn_phm',
  'phm_c_init',
  'phm_init_range',
  'reduction_factor', // The shapes of the tensors say it.
  'stochastic_depth',
]

export function compileBottlenecks(context: HubContext): undefined {
  const { config, sites, tensors, refuse, model } = context
  config.ignore(TRAINING_KEYS)
  config.mustBeUnset('cross_adapter', 'cross-attention exists in encoder-decoder models only')
  if (config.value('residual_before_ln') !== true) {
    throw refuse('residual_before_ln', 'other than true adds the residual twice in this architecture; it is not served')
  }
  if (config.value('original_ln_after') !== true) throw refuse('original_ln_after', 'other than true is not served')
  const layers = adaptedLayers(context)
  const read = readerOf(context)
  const hooks = HOOKS.filter(({ key }) => config.flag(key))
  compileInvertible(context)
  config.finish()
  for (const layer of layers) {
    for (const { module, hook } of hooks) {
      const site: Site = `layers.${layer}.${hook}`
      sites.addAtHook(site, read(`model.layers.${layer}.${module}.adapters`))
    }
  }
  if (hooks.length === 0 && !tensors.hasUnder('model.invertible_adapters')) {
    throw refuse('output_adapter', `no adapter in any of the ${model.spec.numLayers} layers`)
  }
}

/** Reads the config once; the function it answers reads the bottleneck whose tensors lie under a path. */
function readerOf(context: HubContext): (path: string) => Bottleneck {
  const { config, tensors, model } = context
  const width = model.spec.hiddenSize
  const activation = readActivation(context)
  const isParallel = config.flag('is_parallel')
  const readsSum = config.flag('original_ln_before')
  const hasNormBefore = config.flag('ln_before')
  const hasNormAfter = config.flag('ln_after')
  const normsSublayerSum = config.flag('adapter_residual_before_ln') && hasNormAfter && !isParallel
  const hasGate = config.flag('use_gating')
  const projections = openProjections(context)
  const scaleOf = readScale(context)
  const norm = (path: string): LayerNormWeights => ({
    weight: tensors.require(`${path}.weight`, [width]).values,
    bias: tensors.require(`${path}.bias`, [width]).values,
    eps: LAYER_NORM_EPS,
  })
  return (path) => {
    // The norm is the first module of a sequence that the projection is otherwise the first of; it is stored twice.
    const normBefore = hasNormBefore ? norm(`${path}.adapter_norm_before`) : null
    if (hasNormBefore) tensors.skip(`${path}.adapter_down.0.weight`)
    if (hasNormBefore) tensors.skip(`${path}.adapter_down.0.bias`)
    const down = projections.read(`${path}.adapter_down.${hasNormBefore ? 1 : 0}`, 'down')
    const up = projections.read(`${path}.adapter_up`, 'up')
    return {
      kind: 'bottleneck',
      input: isParallel ? 'residual' : readsSum ? 'sum' : 'sublayer',
      size: down.weight.length / width,
      down: down.weight,
      downBias: down.bias,
      up: up.weight,
      upBias: up.bias,
      activation,
      scale: scaleOf(path),
      normBefore,
      normAfter: hasNormAfter ? norm(`${path}.adapter_norm_after`) : null,
      normsSublayerSum,
      gate: hasGate ? readGate(context, `${path}.gate`, width) : null,
    }
  }
}

/** `scaling`: a number, one learned value, or one an output. */
function readScale({ config, tensors, model, refuse }: HubContext): (path: string) => number | Float32Array {
  const scaling = config.value('scaling')
  if (typeof scaling === 'number' && Number.isFinite(scaling)) return () => scaling
  if (scaling === 'learned') return (path) => tensors.require(`${path}.scaling`, [1]).values[0] as number
  if (scaling === 'channel') return (path) => tensors.require(`${path}.scaling`, [model.spec.hiddenSize]).values
  throw refuse('scaling', `${show(scaling)} is neither a number nor learned nor channel`)
}

/** A linear of one output, [1, in]. */
export function readGate({ tensors }: HubContext, path: string, width: number): PooledGate {
  const weight = tensors.require(`${path}.weight`, [1, width]).values
  return { weight, bias: tensors.require(`${path}.bias`, [1]).values[0] as number }
}
