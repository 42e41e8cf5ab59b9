// A delta adapter from two checkpoints of one architecture: `lorikeet delta`.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { LorikeetError } from '../../../errors.ts'
import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import { SafetensorsWriter } from '../../../model/safetensors-writer.ts'
import { readWeight } from '../peft/module-weights.ts'
import { DELTA_VERSION } from './compile-delta.ts'

export interface DeltaOptions {
  readonly base: ModelSource
  readonly tuned: ModelSource
  readonly out: string
  /** Share of all weights of linears and heads that is kept, the largest differences first; null = every difference. */
  readonly topKPercent: number | null
  /** Label for listings. */
  readonly kind: string
  readonly onModule?: (path: string) => void
}

export interface DeltaSummary {
  readonly numTensors: number
  readonly numBytes: number
  readonly numChanged: number
  readonly numKept: number
}

/** Buckets of a float32 by its upper bits: sign off, 8 bits of exponent, 7 of mantissa, so that a bucket spans less than 1 %. */
const NUM_BUCKETS = 1 << 15

/** Bytes an entry takes in each form: a float32, and an int32 beside it where single entries are named. */
const VALUE_BYTES = 4
const INDEX_BYTES = 4

/** Largest int32. */
const MAX_INDEX = 2 ** 31 - 1

/** Writes `lorikeet_delta.json` and `delta.safetensors` into `out`. Throws DELTA_IMPOSSIBLE where the two do not fit each other. */
export function makeDelta(options: DeltaOptions): DeltaSummary {
  const { base, tuned, out, onModule } = options
  checkSameShapes(base, tuned)
  const modules = [...base.modules.values()].filter((module) => !isTiedHead(base, module))
  const threshold = options.topKPercent === null ? 0 : findThreshold(options, modules, options.topKPercent)
  mkdirSync(out, { recursive: true })
  const writer = new SafetensorsWriter(join(out, 'delta.safetensors'))
  let [numChanged, numKept] = [0, 0]
  for (const module of modules) {
    onModule?.(module.path)
    const delta = differenceOf(base, tuned, module)
    numChanged += countNonZero(delta)
    if (isRanked(module)) dropBelow(delta, threshold)
    numKept += countNonZero(delta)
    writeWeight(writer, module, delta)
    if (module.hasBias) writeBias(writer, module, biasDifference(base, tuned, module))
  }
  writer.finish()
  const header = { version: DELTA_VERSION, kind: options.kind, base_model_name_or_path: base.path }
  writeFileSync(join(out, 'lorikeet_delta.json'), `${JSON.stringify(header, null, 2)}\n`)
  return { numTensors: writer.numTensors, numBytes: writer.numBytes, numChanged, numKept }
}

/** In the form that takes the fewest bytes. Norms are a row. */
function writeWeight(writer: SafetensorsWriter, module: ModuleInfo, delta: Float32Array): void {
  const name = `${module.path}.weight`
  const numNonZero = countNonZero(delta)
  if (numNonZero === 0) return
  const isNorm = module.kind === 'norm'
  const width = isNorm ? 1 : module.inFeatures
  const rowIds = Int32Array.from(changedRows(delta, width))
  const denseBytes = delta.length * VALUE_BYTES
  const rowBytes = isNorm ? denseBytes : rowIds.length * (width * VALUE_BYTES + INDEX_BYTES)
  const sparseBytes = numNonZero * (VALUE_BYTES + INDEX_BYTES)
  if (delta.length <= MAX_INDEX && sparseBytes < Math.min(rowBytes, denseBytes)) {
    const indices = new Int32Array(numNonZero)
    for (let i = 0, n = 0; i < delta.length; i++) if (delta[i] !== 0) indices[n++] = i
    writer.add(`${name}.indices`, [numNonZero], indices)
    writer.add(
      `${name}.values`,
      [numNonZero],
      Float32Array.from(indices, (index) => delta[index] as number),
    )
  } else if (rowBytes < denseBytes) {
    const rows = new Float32Array(rowIds.length * width)
    rowIds.forEach((row, i) => {
      rows.set(delta.subarray(row * width, (row + 1) * width), i * width)
    })
    writer.add(`${name}.rows`, [rowIds.length], rowIds)
    writer.add(`${name}.delta`, [rowIds.length, width], rows)
  } else writer.add(`${name}.delta`, isNorm ? [module.outFeatures] : [module.outFeatures, module.inFeatures], delta)
}

function writeBias(writer: SafetensorsWriter, module: ModuleInfo, delta: Float32Array): void {
  if (countNonZero(delta) > 0) writer.add(`${module.path}.bias.delta`, [module.outFeatures], delta)
}

/** Smallest size of a kept difference: as many as `percent` of the ranked weights lie at or above it, up to one bucket. */
function findThreshold({ base, tuned }: DeltaOptions, modules: readonly ModuleInfo[], percent: number): number {
  const buckets = new Float64Array(NUM_BUCKETS)
  let numWeights = 0
  for (const module of modules.filter(isRanked)) {
    const delta = differenceOf(base, tuned, module)
    const bits = new Uint32Array(delta.buffer)
    numWeights += bits.length
    for (let i = 0; i < bits.length; i++) {
      const bucket = bucketOf(bits[i] as number)
      buckets[bucket] = (buckets[bucket] as number) + 1
    }
  }
  const most = Math.floor((numWeights * percent) / 100)
  let count = 0
  for (let bucket = NUM_BUCKETS - 1; bucket > 0; bucket--) {
    count += buckets[bucket] as number
    if (count > most) return floorOf(bucket + 1)
  }
  return 0
}

function bucketOf(bits: number): number {
  return (bits & 0x7fffffff) >>> 16
}

/** Smallest size in a bucket. */
function floorOf(bucket: number): number {
  return new Float32Array(Uint32Array.of(bucket << 16).buffer)[0] as number
}

function dropBelow(delta: Float32Array, threshold: number): void {
  for (let i = 0; i < delta.length; i++) if (Math.abs(delta[i] as number) < threshold) delta[i] = 0
}

/** Norms and embeddings are small or already sparse by row: a share is taken of linears and heads. */
function isRanked({ kind }: ModuleInfo): boolean {
  return kind === 'linear' || kind === 'head'
}

function differenceOf(base: ModelSource, tuned: ModelSource, module: ModuleInfo): Float32Array {
  const before = readWeight(base, module)
  return readWeight(tuned, module).map((value, i) => value - (before[i] as number))
}

function biasDifference(base: ModelSource, tuned: ModelSource, module: ModuleInfo): Float32Array {
  const delta = new Float32Array(module.outFeatures)
  for (const { site, rowStart } of module.parts) {
    const before = base.read(`${site}.bias`)
    delta.set(
      tuned.read(`${site}.bias`).map((value, i) => value - (before[i] as number)),
      rowStart,
    )
  }
  return delta
}

function* changedRows(delta: Float32Array, width: number): Generator<number> {
  for (let row = 0; row * width < delta.length; row++) {
    if (delta.subarray(row * width, (row + 1) * width).some((value) => value !== 0)) yield row
  }
}

function countNonZero(values: Float32Array): number {
  let count = 0
  for (let i = 0; i < values.length; i++) if (values[i] !== 0) count++
  return count
}

/** A tied head is the embedding, whose difference is written once. */
function isTiedHead(model: ModelSource, { kind }: ModuleInfo): boolean {
  return kind === 'head' && model.spec.tiedHead
}

function checkSameShapes(base: ModelSource, tuned: ModelSource): void {
  const impossible = (reason: string) => new LorikeetError('DELTA_IMPOSSIBLE', { reason })
  if (base.spec.tiedHead !== tuned.spec.tiedHead) {
    throw impossible('one checkpoint ties its head to the embedding and the other does not')
  }
  for (const module of base.modules.values()) {
    const other = tuned.modules.get(module.path)
    if (other === undefined) throw impossible(`the tuned checkpoint has no ${module.path}`)
    const isSame = other.outFeatures === module.outFeatures && other.inFeatures === module.inFeatures
    if (!isSame) throw impossible(`${module.path} has another shape in the tuned checkpoint`)
    if (other.hasBias !== module.hasBias) throw impossible(`only one of the checkpoints has a bias at ${module.path}`)
    if (module.refusal !== null) throw impossible(`${module.path}: ${module.refusal}`)
  }
}
