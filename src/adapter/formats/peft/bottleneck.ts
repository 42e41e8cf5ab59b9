// BOTTLENECK, a type of LLM-Adapters' fork of PEFT (arXiv:2304.01933): A(x) = scale · up(act(down x)) at linears, without biases.
//
//   parallel                     W x + A(x)
//   serial, gate and up          W (x + A(x))
//   serial, down                 y + A(y) with y = W x

import type { ModuleInfo } from '../../../model/module-map.ts'
import type { Bottleneck } from '../../primitive.ts'
import { activationNamed } from '../activation-names.ts'
import { show } from './config-fields.ts'
import { type LinearKind, openTargets } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

/** The fork decides by the module's name; its table has no other of Llama's. */
const SERIAL_INPUTS: Readonly<Record<string, Bottleneck['input']>> = {
  gate_proj: 'site-input',
  up_proj: 'site-input',
  down_proj: 'site-output',
}

export function compileBottleneck(context: PeftContext): PeftScope {
  const { config, refuse, model } = context
  const isParallel = config.flag('use_parallel_adapter')
  // It only chooses the targets of a config that names none.
  const isDownOnly = config.flag('use_adapterp')
  const size = readSize(context, 'bottleneck_size')
  const activation = activationNamed(config.value('non_linearity') ?? 'tanh', 'non_linearity', refuse)
  const scaleOf = readScale(context)
  const serialTargets = isDownOnly ? ['down_proj'] : Object.keys(SERIAL_INPUTS)
  const kind: LinearKind = {
    trainingKeys: ['adapter_dropout', 'init_weights'],
    defaultTargets: { [model.spec.modelType]: isParallel ? ['q_proj', 'v_proj', 'k_proj'] : serialTargets },
    targetedBias: 'adapter_only',
    takesConv1d: false,
  }
  for (const module of openTargets(context, kind).modules) {
    const input = isParallel ? 'site-beside' : serialInput(context, module)
    compileModule(context, module, { input, size, activation, scale: scaleOf(module) })
  }
  return EVERYWHERE
}

function serialInput({ refuse }: PeftContext, { path }: ModuleInfo): Bottleneck['input'] {
  const name = path.slice(path.lastIndexOf('.') + 1)
  const input = Object.hasOwn(SERIAL_INPUTS, name) ? SERIAL_INPUTS[name] : undefined
  if (input !== undefined) return input
  throw refuse('target_modules', `${path}: a serial bottleneck is defined for ${Object.keys(SERIAL_INPUTS).join(', ')} only`)
}

function compileModule(
  context: PeftContext,
  module: ModuleInfo,
  bottleneck: Pick<Bottleneck, 'input' | 'size' | 'activation' | 'scale'>,
): void {
  const { tensors, sites, refuse } = context
  const { path, inFeatures, outFeatures, parts } = module
  const { input, size } = bottleneck
  if (parts.length !== 1) throw refuse('target_modules', `${path} is several linears in one, which this type is not served on`)
  checkStoredRank(context, `${path}.adapter_down.weight`, size, 'bottleneck_size')
  const numIn = input === 'site-output' ? outFeatures : inFeatures
  const numOut = input === 'site-input' ? inFeatures : outFeatures
  sites.addBottleneck(module, {
    ...bottleneck,
    down: tensors.require(`${path}.adapter_down.weight`, [size, numIn]).values,
    downBias: null,
    up: tensors.require(`${path}.adapter_up.weight`, [numOut, size]).values,
    upBias: null,
    normBefore: null,
    normAfter: null,
    normsSublayerSum: false,
    gate: null,
  })
}

/** `scaling`: a number, or one learned value a module. */
function readScale({ config, tensors, refuse }: PeftContext): (module: ModuleInfo) => number {
  const scaling = config.value('scaling') ?? 1
  if (typeof scaling === 'number' && Number.isFinite(scaling)) return () => scaling
  if (scaling === 'learned') return ({ path }) => tensors.require(`${path}.adapter_scaling`, [1]).values[0] as number
  throw refuse('scaling', `${show(scaling)} is neither a number nor learned`)
}
