// C3A (arXiv:2407.19342): ΔW of circulant blocks, divided by the width of the input as PEFT does.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { readBarePatterned } from './name-patterns.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkRank, readSize } from './rank.ts'

const C3A: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: 'c3a_only',
  takesConv1d: false,
}

export function compileC3a(context: PeftContext): PeftScope {
  const sizesOf = readBarePatterned(context, 'block_size_pattern', readSize(context, 'block_size'))
  const { modules } = openTargets(context, C3A)
  const sizeOf = sizesOf(modules)
  for (const module of modules) {
    compileModule(context, module, checkRank(context, 'block_size_pattern', sizeOf(module)))
  }
  return EVERYWHERE
}

function compileModule({ tensors, sites, refuse }: PeftContext, module: ModuleInfo, blockSize: number): void {
  const { path, outFeatures, inFeatures } = module
  if (outFeatures % blockSize !== 0 || inFeatures % blockSize !== 0)
    throw refuse('block_size', `${blockSize} does not divide ${path} [${outFeatures}, ${inFeatures}]`)
  const shape = [outFeatures / blockSize, inFeatures / blockSize, blockSize]
  const stored = tensors.require(`${path}.c3a_kernel`, shape).values
  const kernel = stored.map((value) => value / inFeatures)
  if (!sites.addCirculant(module, { blockSize, kernel })) {
    throw refuse('block_size', `blocks of ${blockSize} outputs span two of the projections that ${path} fuses`)
  }
}
