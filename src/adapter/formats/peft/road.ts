// RoAd (arXiv:2409.00119): pairs of outputs, half a group apart, are rotated and scaled, z' = cos · z ∓ sin · z of the partner. One
// angle a pair (`road_1`), one an output (`road_2`), or separate ones for both terms (`road_4`).

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'

const ROAD: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

type Variant = 'road_1' | 'road_2' | 'road_4'

/** Parameters an output. */
const DENSITY: Readonly<Record<Variant, number>> = { road_1: 0.5, road_2: 1, road_4: 2 }

export function compileRoad(context: PeftContext): PeftScope {
  const { config, refuse } = context
  if (config.value('variant') === null) throw refuse('variant', 'missing; every PEFT writer stores it')
  const variant = config.oneOf('variant', ['road_1', 'road_2', 'road_4'], 'road_1')
  const groupSize = readSize(context, 'group_size')
  if (groupSize % 2 !== 0) throw refuse('group_size', `${groupSize} is odd, and a group is made of pairs`)
  for (const module of openTargets(context, ROAD).modules) compileModule(context, module, variant, groupSize)
  return EVERYWHERE
}

function compileModule(context: PeftContext, module: ModuleInfo, variant: Variant, groupSize: number): void {
  const { tensors, sites, refuse } = context
  const { path, outFeatures } = module
  if (outFeatures % groupSize !== 0)
    throw refuse('group_size', `${groupSize} does not divide the ${outFeatures} outputs of ${path}`)
  const size = outFeatures * DENSITY[variant]
  const theta = tensors.require(`${path}.road_theta`, [size]).values
  const alpha = tensors.require(`${path}.road_alpha`, [size]).values
  const [cos, sin] = [new Float32Array(outFeatures), new Float32Array(outFeatures)]
  for (let output = 0; output < outFeatures; output++) {
    const [ofCos, ofSin] = indicesOf(output, variant, groupSize)
    cos[output] = (alpha[ofCos] as number) * Math.cos(theta[ofCos] as number)
    sin[output] = (alpha[ofSin] as number) * Math.sin(theta[ofSin] as number)
  }
  if (!sites.addPairRotate(module, { half: groupSize / 2, cos, sin })) {
    throw refuse('group_size', `groups of ${groupSize} outputs span two of the projections that ${path} fuses`)
  }
}

/** Where the two parameters of an output are stored. */
function indicesOf(output: number, variant: Variant, groupSize: number): readonly [ofCos: number, ofSin: number] {
  if (variant === 'road_2') return [output, output]
  const group = Math.floor(output / groupSize)
  const offset = output % groupSize
  if (variant === 'road_4') return [group * 2 * groupSize + offset, group * 2 * groupSize + groupSize + offset]
  const half = groupSize / 2
  const ofPair = group * half + (offset % half)
  return [ofPair, ofPair]
}
