// POLY (arXiv:2202.13914): a library of skills and a table that mixes them by task. The reference wants the task with every call; here
// one adapter serves one task, named by `task_id` in its config, which leaves one low-rank update of scale 1 / r.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { transpose } from './module-weights.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { readSize } from './rank.ts'
import { readTaskId } from './task-id.ts'

const POLY: LinearKind = {
  trainingKeys: ['init_weights'],
  defaultTargets: QUERY_AND_VALUE,
  targetedBias: null,
  takesConv1d: false,
}

/** The reference adds it to a sum of sigmoids before it divides by it. */
const SUM_EPSILON = 1e-12

interface Shape {
  readonly rank: number
  readonly numTasks: number
  readonly numSkills: number
  readonly numSplits: number
}

export function compilePoly(context: PeftContext): PeftScope {
  const shape: Shape = {
    rank: readSize(context, 'r'),
    numTasks: readSize(context, 'n_tasks'),
    numSkills: readSize(context, 'n_skills'),
    numSplits: readSize(context, 'n_splits'),
  }
  context.config.oneOf('poly_type', ['poly'], 'poly')
  const task = readTaskId(context, shape.numTasks)
  for (const module of openTargets(context, POLY).modules) compileModule(context, module, shape, task)
  return EVERYWHERE
}

function compileModule({ tensors, sites, refuse }: PeftContext, module: ModuleInfo, shape: Shape, task: number): void {
  const { path, outFeatures, inFeatures } = module
  const { rank, numTasks, numSkills, numSplits } = shape
  if (outFeatures % numSplits !== 0 || inFeatures % numSplits !== 0)
    throw refuse('n_splits', `${numSplits} does not divide ${path} [${outFeatures}, ${inFeatures}]`)
  const skillsA = tensors.require(`${path}.poly_lora_A`, [numSplits, numSkills, inFeatures / numSplits, rank]).values
  const skillsB = tensors.require(`${path}.poly_lora_B`, [numSplits, numSkills, rank, outFeatures / numSplits]).values
  const logits = tensors.require(`${path}.poly_router.module_logits`, [numTasks, numSplits * numSkills]).values
  const weights = mixingWeights(logits.subarray(task * numSplits * numSkills, (task + 1) * numSplits * numSkills), shape)
  // The splits of A lie one behind the other, [in, rank]; those of B side by side, [rank, out].
  const a = transpose(mix(skillsA, weights, numSplits), inFeatures, rank)
  const mixedB = mix(skillsB, weights, numSplits)
  const b = new Float32Array(outFeatures * rank)
  const height = outFeatures / numSplits
  for (let o = 0; o < outFeatures; o++) {
    const split = Math.floor(o / height)
    for (let k = 0; k < rank; k++) b[o * rank + k] = mixedB[(split * rank + k) * height + (o % height)] as number
  }
  sites.addLowRank(module, { rank, scale: 1 / rank, a, b, biasB: null })
}

/** σ of the logits, each split divided by its sum: [splits, skills]. */
function mixingWeights(logits: Float32Array, { numSkills }: Shape): Float64Array {
  const weights = Float64Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)))
  for (let start = 0; start < weights.length; start += numSkills) {
    const split = weights.subarray(start, start + numSkills)
    const sum = split.reduce((total, weight) => total + weight, SUM_EPSILON)
    for (let skill = 0; skill < numSkills; skill++) split[skill] = (split[skill] as number) / sum
  }
  return weights
}

/** Σ over skills: [splits, skills, n] -> [splits, n]. */
function mix(skills: Float32Array, weights: Float64Array, numSplits: number): Float32Array {
  const numSkills = weights.length / numSplits
  const size = skills.length / weights.length
  const out = new Float32Array(numSplits * size)
  for (let split = 0; split < numSplits; split++) {
    for (let i = 0; i < size; i++) {
      let sum = 0
      for (let skill = 0; skill < numSkills; skill++) {
        const at = split * numSkills + skill
        sum += (weights[at] as number) * (skills[at * size + i] as number)
      }
      out[split * size + i] = sum
    }
  }
  return out
}
