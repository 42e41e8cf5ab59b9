// The bottlenecks of OpenDelta, A(z) = up(act(down z + b)) + b', hung behind modules or beside them.

import type { Bottleneck, Site } from '../../primitive.ts'
import { transpose } from '../peft/module-weights.ts'
import { type DeltaContext, type DeltaTarget, findTargets, readActivation } from './delta-context.ts'

type Linear = readonly [weight: Float32Array, bias: Float32Array]

/** y + A(y) behind a module (Houlsby, arXiv:1902.00751). */
export function compileAdapters(context: DeltaContext): null {
  const size = readSize(context, 'bottleneck_dim')
  const activation = readActivation(context)
  for (const target of findTargets(context, 'adapter')) {
    const width = widthOf(context, target, 'output')
    const { down, up } = readPair(context, `${target.path}.adapter`, size, width)
    addBehind(context, target, { size, activation, ...fieldsOf(down, up) })
  }
  return null
}

/** The same with both matrices of rank one (arXiv:2106.04647, its baseline). */
export function compileLowRankAdapters(context: DeltaContext): null {
  const { config, tensors, refuse } = context
  config.ignore(['low_rank_w_init'])
  const factor = readSize(context, 'reduction_factor')
  const rank = config.value('low_rank_rank') ?? 1
  // The library multiplies the factors element by element, which is a matrix for one column and one row only.
  if (rank !== 1) throw refuse('low_rank_rank', 'other than 1 has no meaning in the library that wrote it')
  const activation = readActivation(context)
  for (const target of findTargets(context, 'low_rank_adapter')) {
    const width = widthOf(context, target, 'output')
    const size = Math.floor(width / factor)
    const read = (name: string, numIn: number, numOut: number): Linear => {
      const path = `${target.path}.low_rank_adapter.${name}`
      const left = tensors.require(`${path}.W_left`, [numIn, 1]).values
      const right = tensors.require(`${path}.W_right`, [1, numOut]).values
      const product = Float32Array.from(
        { length: numIn * numOut },
        (_, i) => (left[Math.floor(i / numOut)] as number) * (right[i % numOut] as number),
      )
      return [transpose(product, numIn, numOut), tensors.require(`${path}.b`, [numOut]).values]
    }
    const [down, up] = [read('down_sampler', width, size), read('up_sampler', size, width)]
    addBehind(context, target, { size, activation, ...fieldsOf(down, up) })
  }
  return null
}

/**
 * A reads what one module reads and is added to what another gives (arXiv:2110.04366). The library pairs the modules it visits: first
 * and second, third and fourth; two names in a row that are equal are one module twice.
 */
export function compileParallelAdapters(context: DeltaContext): null {
  const { config, refuse } = context
  const size = readSize(context, 'bottleneck_dim')
  // Stored at its default, and never passed on.
  config.ignore(['scaled'])
  const activation = readActivation(context)
  const names = config.stringList('modified_modules')
  if (names === null) throw refuse('modified_modules', 'missing; without it the pairs of modules are not known')
  for (const { from, to } of pairsOf(context, names)) {
    const width = widthOf(context, from, 'input')
    const { down, up } = readPair(context, `${from.path}.parallel_adapter`, size, width)
    const fields = { size, activation, ...fieldsOf(down, up) }
    if (from === to && from.module !== null) {
      checkWidth(context, from, width, widthOf(context, from, 'output'))
      addAtLinear(context, from, { input: 'site-beside', ...fields })
      continue
    }
    const hook = outputHook(context, to)
    const isSameSublayer = inputHook(from) === hook
    if (!isSameSublayer) {
      throw refuse('modified_modules', `${from.path} and ${to.path} are no input and output of one sublayer, which is served`)
    }
    addAtSublayer(context, to.path, hook, { kind: 'bottleneck', input: 'normed', ...fields })
  }
  return null
}

interface Pair {
  readonly from: DeltaTarget
  readonly to: DeltaTarget
}

function pairsOf(context: DeltaContext, names: readonly string[]): readonly Pair[] {
  const { refuse } = context
  const pairs: Pair[] = []
  let from: DeltaTarget | null = null
  let turn = 0
  for (const target of findTargets(context, 'parallel_adapter')) {
    if (turn % 2 === 0) from = target
    if (turn % 2 === 1 || names[turn] === names[turn + 1]) {
      if (from !== null) pairs.push({ from, to: target })
      from = null
      turn |= 1
    }
    turn = (turn + 1) % names.length
  }
  if (from !== null) throw refuse('modified_modules', `${from.path} has no second module to be added to`)
  return pairs
}

/** The sublayer whose normed input a module reads. */
function inputHook(target: DeltaTarget): Site | null {
  if (target.module === null) return target.hook
  const { layer, parts } = target.module
  const roles = parts.map(({ site }) => site.slice(site.lastIndexOf('.') + 1))
  if (layer === null) return null
  if (roles.every((role) => role === 'q' || role === 'k' || role === 'v')) return `layers.${layer}.attnOut`
  return roles.every((role) => role === 'gate' || role === 'up') ? `layers.${layer}.mlpOut` : null
}

/** The sublayer whose output a module gives. */
function outputHook({ refuse }: DeltaContext, target: DeltaTarget): Site {
  if (target.module === null) return target.hook
  const { layer, path, parts } = target.module
  const [part] = parts
  if (part?.site.endsWith('.o') === true && layer !== null) return `layers.${layer}.attnOut`
  if (part?.site.endsWith('.down') === true && layer !== null) return `layers.${layer}.mlpOut`
  throw refuse('modified_modules', `${path} is not the output of a sublayer, where a parallel adapter is added`)
}

function addBehind(context: DeltaContext, target: DeltaTarget, fields: Omit<Bottleneck, 'kind' | 'input'>): void {
  if (target.module !== null) addAtLinear(context, target, { input: 'site-output', ...fields })
  else addAtSublayer(context, target.path, target.hook, { kind: 'bottleneck', input: 'sublayer', ...fields })
}

/** Only where the module's output is what enters the stream: a norm between the two would come after the adapter. */
function addAtSublayer({ sites, model, refuse }: DeltaContext, path: string, hook: Site, bottleneck: Bottleneck): void {
  const { norms } = model.spec
  if (norms.has('postAttn') || norms.has('postMlp')) {
    throw refuse(
      'modified_modules',
      `${path}: this model norms what a sublayer gives, and an adapter before that is not served`,
    )
  }
  sites.addAtHook(hook, bottleneck)
}

function addAtLinear(
  { sites, refuse }: DeltaContext,
  { path, module }: DeltaTarget,
  bottleneck: Omit<Bottleneck, 'kind'>,
): void {
  if (module?.kind !== 'linear' || module.parts.length !== 1) {
    throw refuse(
      'modified_modules',
      `${path} is no single linear; bottlenecks of this type are served at those and at sublayers`,
    )
  }
  sites.addBottleneck(module, bottleneck)
}

function widthOf({ model }: DeltaContext, { module }: DeltaTarget, end: 'input' | 'output'): number {
  if (module === null) return model.spec.hiddenSize
  return end === 'input' ? module.inFeatures : module.outFeatures
}

function checkWidth({ refuse }: DeltaContext, { path }: DeltaTarget, numIn: number, numOut: number): void {
  if (numIn !== numOut)
    throw refuse('modified_modules', `${path} reads ${numIn} and gives ${numOut} numbers; A cannot be beside it`)
}

function readPair({ tensors }: DeltaContext, path: string, size: number, width: number): { down: Linear; up: Linear } {
  const read = (name: string, numIn: number, numOut: number): Linear => [
    tensors.require(`${path}.modulelist.${name}.weight`, [numOut, numIn]).values,
    tensors.require(`${path}.modulelist.${name}.bias`, [numOut]).values,
  ]
  return { down: read('down_proj', width, size), up: read('up_proj', size, width) }
}

function fieldsOf([down, downBias]: Linear, [up, upBias]: Linear) {
  return { down, downBias, up, upBias, scale: 1, normBefore: null, normAfter: null, normsSublayerSum: false, gate: null }
}

function readSize({ config, refuse }: DeltaContext, key: string): number {
  const value = config.number(key)
  if (!Number.isInteger(value) || value < 1) throw refuse(key, `${value} is not a size`)
  return value
}
