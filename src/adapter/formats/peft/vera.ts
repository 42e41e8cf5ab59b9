// VERA (arXiv:2310.11454): ΔW = diag(λb) · B[:out] · diag(λd) · A[:, :in], with one random A and B for all modules. No scale.
// λb and λd are folded into B, so that modules of one width share their A. PVERA (arXiv:2512.07703, its probabilistic form) serves the mean: the
// first half of A and λd; the second half is a variance that only sampling reads.

import type { ModuleInfo } from '../../../model/module-map.ts'
import { type LinearKind, openTargets, QUERY_AND_VALUE } from './linear-kind.ts'
import { MersenneTwister } from './mersenne-twister.ts'
import { EVERYWHERE, type PeftContext, type PeftScope } from './peft-context.ts'
import { checkStoredRank, readSize } from './rank.ts'

interface VeraType {
  /** Before the names of tensors and of the bias option. */
  readonly prefix: 'vera' | 'pvera'
  /** Rows of A and λd stored for each rank. */
  readonly rowsPerRank: 1 | 2
}

/** Slices of the shared projections. */
interface Projections {
  /** The first `inFeatures` columns of A's first `rank` rows; one array for all modules of that width. */
  aOf(inFeatures: number): Float32Array
  /** [maxOut, rank] */
  readonly b: Float32Array
}

export function compileVera(context: PeftContext): PeftScope {
  return compile(context, { prefix: 'vera', rowsPerRank: 1 })
}

export function compilePvera(context: PeftContext): PeftScope {
  context.config.mustBeUnset('sample_at_inference', 'sampling while generating is not supported; only the mean is served')
  context.config.ignore(['generator_seed'])
  return compile(context, { prefix: 'pvera', rowsPerRank: 2 })
}

function compile(context: PeftContext, type: VeraType): PeftScope {
  const { config } = context
  const rank = readSize(context, 'r')
  const seed = readSeed(context)
  const isSaved = config.value('save_projection') === null || config.flag('save_projection')
  const { modules } = openTargets(context, kindOf(type))
  const projections = readProjections(context, type, modules, rank, isSaved ? null : seed)
  for (const module of modules) compileModule(context, type, module, rank, projections)
  return EVERYWHERE
}

function kindOf({ prefix }: VeraType): LinearKind {
  return {
    trainingKeys: ['d_initial', 'fan_in_fan_out', 'init_weights', `${prefix}_dropout`],
    defaultTargets: QUERY_AND_VALUE,
    targetedBias: `${prefix}_only`,
    takesConv1d: true,
  }
}

function compileModule(context: PeftContext, type: VeraType, module: ModuleInfo, rank: number, projections: Projections): void {
  const { sites, tensors } = context
  const { path, outFeatures, inFeatures } = module
  const lambdaB = tensors.require(`${path}.${type.prefix}_lambda_b`, [outFeatures]).values
  checkStoredRank(context, `${path}.${type.prefix}_lambda_d`, rank * type.rowsPerRank)
  const lambdaD = tensors.require(`${path}.${type.prefix}_lambda_d`, [rank * type.rowsPerRank]).values
  const b = new Float32Array(outFeatures * rank)
  for (let o = 0; o < outFeatures; o++) {
    for (let k = 0; k < rank; k++) {
      b[o * rank + k] = (lambdaB[o] as number) * (projections.b[o * rank + k] as number) * (lambdaD[k] as number)
    }
  }
  sites.addLowRank(module, { rank, scale: 1, a: projections.aOf(inFeatures), b, biasB: null })
}

/** `seed` is null where the file holds the projections. Their sizes are the largest among the targeted modules. */
function readProjections(
  context: PeftContext,
  { prefix, rowsPerRank }: VeraType,
  modules: readonly ModuleInfo[],
  rank: number,
  seed: number | null,
): Projections {
  const maxIn = Math.max(...modules.map(({ inFeatures }) => inFeatures))
  const maxOut = Math.max(...modules.map(({ outFeatures }) => outFeatures))
  const random = seed === null ? null : new MersenneTwister(seed)
  if (random === null) checkStoredRank(context, `base_model.${prefix}_A`, rank * rowsPerRank)
  const read = (name: string, rows: number, columns: number): Float32Array =>
    random === null
      ? context.tensors.require(`base_model.${prefix}_${name}`, [rows, columns]).values
      : drawProjection(random, rows, columns)
  const a = read('A', rank * rowsPerRank, maxIn)
  const b = read('B', maxOut, rank)
  const slices = new Map<number, Float32Array>()
  const aOf = (inFeatures: number): Float32Array => {
    const slice = slices.get(inFeatures) ?? leftColumns(a, rank, maxIn, inFeatures)
    slices.set(inFeatures, slice)
    return slice
  }
  return { aOf, b }
}

/** Kaiming uniform with the gain of a ReLU: bounds ±√3 · √2 / √columns. A is drawn before B, from one stream. */
export function drawProjection(random: MersenneTwister, rows: number, columns: number): Float32Array {
  const bound = Math.sqrt(3) * (Math.sqrt(2) / Math.sqrt(columns))
  return random.uniform(rows * columns, -bound, bound)
}

function leftColumns(a: Float32Array, rank: number, width: number, columns: number): Float32Array {
  const out = new Float32Array(rank * columns)
  for (let k = 0; k < rank; k++) out.set(a.subarray(k * width, k * width + columns), k * columns)
  return out
}

function readSeed({ config, refuse }: PeftContext): number {
  const seed = config.number('projection_prng_key')
  if (!Number.isSafeInteger(seed)) throw refuse('projection_prng_key', `${seed} is not an integer`)
  return seed
}
