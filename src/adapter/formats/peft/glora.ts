// GLORA (arXiv:2306.07967): W' = W + W ⊙ A + B, and, where the linear has a bias b, b' = b + b ⊙ D + E + W C. Each of A to E is a
// product of two factors, a vector, one number, or nothing. A full A or B makes the update dense; a vector (of rows) or a number is a
// factor on the base product and an update of rank 1.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, type LinearTargets, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { product } from './matrix-product.ts'
import { readPart } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

const GLORA: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

type Form = 'lora' | 'vector' | 'constant' | 'none'

interface Options {
  readonly rank: number
  readonly ofWeight: Form
  readonly ofPrompt: Form
  readonly ofBias: Form
}

export function compileGlora(context: PeftContext): PeftScope {
  const { config, refuse } = context
  const bias = config.value('bias') ?? 'none'
  if (bias !== 'none') throw refuse('bias', 'biases trained beside those of GLORA are not supported')
  const options: Options = {
    rank: readSize(context, 'r'),
    ofWeight: config.oneOf('config_A_B', ['lora', 'vector', 'constant', 'none'], 'lora'),
    ofPrompt: config.oneOf('config_C', ['lora', 'vector', 'none'], 'lora'),
    ofBias: config.oneOf('config_D_E', ['vector', 'constant', 'none'], 'constant'),
  }
  const targets = openTargets(context, GLORA)
  for (const module of targets.modules) {
    compileWeight(context, targets, module, options)
    compileBias(context, targets, module, options)
  }
  return EVERYWHERE
}

function compileWeight(
  context: PeftContext,
  targets: LinearTargets,
  module: ModuleInfo,
  { rank, ofWeight: form }: Options,
): void {
  const { sites } = context
  const { outFeatures, inFeatures } = module
  const read = (name: 'A' | 'B') => readPath(context, module, name, form, { rows: outFeatures, columns: inFeatures, rank })
  const [a, b] = [read('A'), read('B')]
  if (a === null || b === null) return
  if (form === 'lora') {
    const weight = targets.weightOf(module)
    sites.addDense(
      module,
      weight.map((value, i) => value * (a[i] as number) + (b[i] as number)),
    )
    return
  }
  sites.addOutputVector(
    module,
    'factor',
    Float32Array.from({ length: outFeatures }, (_, o) => 1 + at(a, o)),
  )
  const ones = new Float32Array(inFeatures).fill(1)
  const column = Float32Array.from({ length: outFeatures }, (_, o) => at(b, o))
  sites.addLowRank(module, { rank: 1, scale: 1, a: ones, b: column, biasB: null })
}

/** Nothing of C, D and E acts where the linear has no bias. */
function compileBias(context: PeftContext, targets: LinearTargets, module: ModuleInfo, options: Options): void {
  const { rank } = options
  const { outFeatures, inFeatures, hasBias } = module
  const [ofPrompt, ofBias] = hasBias ? [options.ofPrompt, options.ofBias] : (['none', 'none'] as const)
  const c = readPath(context, module, 'C', ofPrompt, { rows: inFeatures, columns: 1, rank })
  const readFlat = (name: 'D' | 'E') => readPath(context, module, name, ofBias, { rows: outFeatures, columns: null, rank })
  const [d, e] = [readFlat('D'), readFlat('E')]
  if (c === null && d === null && e === null) return
  const shift = c === null ? new Float64Array(outFeatures) : product(targets.weightOf(module), c, inFeatures)
  const bias = baseBias(context, module)
  for (let o = 0; o < outFeatures; o++) {
    const added = (d === null ? 0 : (bias[o] as number) * at(d, o)) + (e === null ? 0 : at(e, o))
    shift[o] = (shift[o] as number) + added
  }
  context.sites.addOutputVector(module, 'shift', Float32Array.from(shift))
}

function baseBias({ model }: PeftContext, module: ModuleInfo): Float32Array {
  const bias = new Float32Array(module.outFeatures)
  for (const part of module.parts) bias.set(readPart(model, { ...part, site: `${part.site}.bias` }), part.rowStart)
  return bias
}

/** A vector's value, or the one number for all. */
function at(values: Float32Array, index: number): number {
  return values[values.length === 1 ? 0 : index] as number
}

/** The values of one path; null where it is off. `columns` null = a flat vector. */
function readPath(
  context: PeftContext,
  { path }: ModuleInfo,
  name: string,
  form: Form,
  { rows, columns, rank }: { rows: number; columns: number | null; rank: number },
): Float32Array | null {
  const { tensors, refuse } = context
  const key = `${path}.glora_${name}`
  const fullShape = columns === null ? [rows] : [rows, columns]
  switch (form) {
    case 'none': {
      // A path that is off stores its zeros.
      const zeros = tensors.require(`${key}.zeros`, fullShape)
      if (zeros.values.some((value) => value !== 0)) throw refuse(zeros.key, 'holds other values than zero')
      return null
    }
    case 'constant':
      return tensors.require(`${key}.X`, [1]).values
    case 'vector':
      return tensors.require(`${key}.X`, columns === null ? [rows] : [rows, 1]).values
    case 'lora': {
      const width = columns ?? 1
      const inner = tensors.shape(`${key}.Xd`)?.[1]
      if (inner !== undefined && inner !== rank)
        throw refuse('r', `the config gives ${key} rank ${rank}, the file has rank ${inner}`)
      checkStoredRank(context, `${key}.Xu`, rank)
      const down = tensors.require(`${key}.Xd`, [rows, rank]).values
      const up = tensors.require(`${key}.Xu`, [rank, width]).values
      return Float32Array.from(product(down, up, rank))
    }
  }
}
