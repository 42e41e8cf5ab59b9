// A and B of a LORA module in full. Two options store less than the matrix they mean:
//   BD-LoRA (arXiv:2510.23346): A or B is block-diagonal, and only its blocks are kept, stacked;
//   QA-LoRA (arXiv:2309.14717): A reads means over groups of g inputs, times in / g; here every input of a group gets A / g · (in / g).

import type { ModuleInfo } from '../../../model/module-map.ts'
import { show } from './config-fields.ts'
import type { PeftContext } from './peft-context.ts'

export interface CompactFactors {
  /** Parts of the module names whose A is block-diagonal, and of those whose B is; [] = none. */
  readonly blockA: readonly string[]
  readonly blockB: readonly string[]
  readonly numBlocks: number
  /** 0 = off. */
  readonly groupSize: number
}

/** Reads use_bdlora, use_qalora and qalora_group_size. */
export function readCompactFactors(context: PeftContext): CompactFactors {
  const { config, refuse } = context
  const groupSize = config.flag('use_qalora') ? config.number('qalora_group_size') : 0
  config.ignore(['qalora_group_size'])
  if (!Number.isInteger(groupSize) || groupSize < 0) throw refuse('qalora_group_size', `${groupSize} is not a size`)
  const value = config.value('use_bdlora')
  const none = { blockA: [], blockB: [], numBlocks: 1, groupSize }
  if (value === null || value === false) return none
  if (typeof value !== 'object' || Array.isArray(value)) throw refuse('use_bdlora', `${show(value)} is not an object`)
  const { target_modules_bd_a: blockA, target_modules_bd_b: blockB, nblocks, match_strict: _, ...rest } = value as BlockConfig
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw refuse(`use_bdlora.${unknown}`, 'is an option this server does not know')
  if (!Number.isInteger(nblocks) || Number(nblocks) < 1)
    throw refuse('use_bdlora.nblocks', `${show(nblocks)} is not a number of blocks`)
  return {
    blockA: readNames(context, 'use_bdlora.target_modules_bd_a', blockA),
    blockB: readNames(context, 'use_bdlora.target_modules_bd_b', blockB),
    numBlocks: Number(nblocks),
    groupSize,
  }
}

interface BlockConfig {
  readonly target_modules_bd_a?: unknown
  readonly target_modules_bd_b?: unknown
  readonly nblocks?: unknown
  readonly match_strict?: unknown
}

/** [rank, in] */
export function readA(context: PeftContext, compact: CompactFactors, module: ModuleInfo, rank: number): Float32Array {
  const { tensors } = context
  const { inFeatures } = module
  const key = `${module.path}.lora_A.weight`
  if (isNamed(compact.blockA, module) && isNamed(compact.blockB, module))
    throw context.refuse('use_bdlora', `names ${module.path} for A and for B; only one of them can be block-diagonal`)
  if (isNamed(compact.blockA, module)) return readBlocks(context, compact, key, rank, inFeatures)
  const { groupSize } = compact
  // On a base without quantisation PEFT ignores the option and stores A in full.
  if (groupSize === 0 || tensors.shape(key)?.[1] === inFeatures) return tensors.require(key, [rank, inFeatures]).values
  if (inFeatures % groupSize !== 0)
    throw context.refuse('qalora_group_size', `${module.path} has ${inFeatures} inputs, not a multiple of ${groupSize}`)
  const numGroups = inFeatures / groupSize
  const pooled = tensors.require(key, [rank, numGroups]).values
  const share = numGroups / groupSize
  return Float32Array.from(
    { length: rank * inFeatures },
    (_, i) => share * (pooled[Math.floor(i / inFeatures) * numGroups + Math.floor((i % inFeatures) / groupSize)] as number),
  )
}

/** [out, rank] */
export function readB(context: PeftContext, compact: CompactFactors, module: ModuleInfo, rank: number): Float32Array {
  const key = `${module.path}.lora_B.weight`
  if (isNamed(compact.blockB, module)) return readBlocks(context, compact, key, module.outFeatures, rank)
  return context.tensors.require(key, [module.outFeatures, rank]).values
}

/** Stored [rows, columns / n]: row r belongs to block ⌊r · n / rows⌋, whose columns follow those of the block before. */
function readBlocks(
  context: PeftContext,
  { numBlocks }: CompactFactors,
  key: string,
  rows: number,
  columns: number,
): Float32Array {
  if (rows % numBlocks !== 0 || columns % numBlocks !== 0)
    throw context.refuse('use_bdlora.nblocks', `${key} [${rows}, ${columns}] does not divide into ${numBlocks} blocks`)
  const width = columns / numBlocks
  const blocks = context.tensors.require(key, [rows, width]).values
  const full = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row++) {
    const block = Math.floor((row * numBlocks) / rows)
    full.set(blocks.subarray(row * width, (row + 1) * width), row * columns + block * width)
  }
  return full
}

/** The reference looks for the names anywhere in the module's path. */
function isNamed(names: readonly string[], { path }: ModuleInfo): boolean {
  return names.some((part) => path.includes(part))
}

function readNames({ refuse }: PeftContext, field: string, value: unknown): readonly string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value) || !value.every((name) => typeof name === 'string'))
    throw refuse(field, `${show(value)} is not a list of names`)
  return value
}
