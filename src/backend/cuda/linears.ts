// One group of linears for all rows of a step: the base product, and beside and after it what the rows' adapters change.
//
//   main   ── input scale? ── base product ───┬── own weights? ── expand ──
//   side   ────────── shrink: s = A x ────────┘
//
// Shrink and base product need the same input and nothing of each other, so they run side by side.

import { invariant } from '../../core/invariant.ts'
import type { Activations } from './activations.ts'
import type { Device } from './device.ts'
import { type CudaDtype, DTYPES } from './dtype.ts'
import type { Matmul } from './matmul.ts'
import type { KernelModule } from './module.ts'
import { groupBit, siteIndex } from './sites.ts'
import { type PackedStep, type ReplacedRun, TILE_ROWS } from './step-inputs.ts'
import { DeviceEvent, Stream } from './stream.ts'
import type { LinearGroup, LinearPart } from './weights.ts'

/** Fixed by the kernels: see shrink.cu and expand.cu. */
const SHRINK_THREADS = 128
/** Columns of a split are shared by four warps that take 32 at a time. */
const SPLIT_STEP = 128
const MIN_SPLIT_COLUMNS = 256
const EXPAND_THREADS = 128
const EXPAND_COLUMNS = 1024
const EXPAND_ROWS = 8
const SCALE_THREADS = 128
const SCALE_COLUMNS = 8 * SCALE_THREADS
const MAX_PARTS = 3
const FLOAT_BYTES = 4

/** Blocks a multiprocessor needs of the shrink to keep its memory busy: each holds some 12 KiB of loads in flight. */
const SHRINK_BLOCKS_PER_MULTIPROCESSOR = { one: 8, many: 4 } as const

export interface LinearInput {
  readonly x: number // [numRows, numIn]
  readonly y: number // [numRows, numOut]
  /** Rows computed, padding included. */
  readonly numRows: number
  /** Logit rows rather than token rows. */
  readonly isHead: boolean
}

export interface LinearsContext {
  readonly device: Device
  readonly kernels: KernelModule
  readonly matmul: Matmul
  readonly activations: Activations
  readonly spec: Parameters<typeof siteIndex>[0]
  readonly dtype: CudaDtype
  readonly stream: Stream
}

export class Linears implements Disposable {
  readonly #context: LinearsContext
  readonly #side: Stream
  readonly #inputIsThere: DeviceEvent
  readonly #shrinkIsDone: DeviceEvent

  constructor(context: LinearsContext) {
    this.#context = context
    this.#side = new Stream(context.device)
    this.#inputIsThere = new DeviceEvent(context.device)
    this.#shrinkIsDone = new DeviceEvent(context.device)
  }

  run(group: LinearGroup, step: PackedStep, input: LinearInput): void {
    const { stream } = this.#context
    const { features } = step
    const bit = groupBit(group.name)
    const isEdited = (features.editedGroups & bit) !== 0
    const numSplits = isEdited ? this.#shrink(group, step, input) : 0
    if ((features.scaledGroups & bit) === 0) this.#product(group, input, wholeOf(group), input.x)
    else for (const part of group.parts) this.#product(group, input, part, this.#scaledInput(group, part, step, input))
    for (const run of input.isHead ? features.replacedLogitRuns : features.replacedRuns) {
      for (const part of group.parts) this.#replace(group, part, step, input, run)
    }
    if (input.isHead && features.hasHeadRows) this.#headRows(group, step, input)
    if (!isEdited) return
    stream.waitFor(this.#shrinkIsDone)
    this.#expand(group, step, input, numSplits)
  }

  [Symbol.dispose](): void {
    this.#side[Symbol.dispose]()
    this.#inputIsThere[Symbol.dispose]()
    this.#shrinkIsDone[Symbol.dispose]()
  }

  #product(
    { numIn, numOut, weight, bias }: LinearGroup,
    { y, numRows, isHead }: LinearInput,
    part: LinearPart,
    x: number,
  ): void {
    const { matmul, stream, dtype } = this.#context
    const { numBytes } = DTYPES[dtype]
    const outBytes = isHead ? FLOAT_BYTES : numBytes
    const shape = { numRows, numIn, numOut: part.numOut, ldOut: numOut, hasBias: bias !== 0, isFloatOut: isHead }
    matmul.run(stream, shape, {
      x,
      weight: weight + part.firstColumn * numIn * numBytes,
      y: y + part.firstColumn * outBytes,
      bias: bias === 0 ? 0 : bias + part.firstColumn * outBytes,
    })
  }

  /** Rows of x times their adapters' input scale at one linear; other rows as they are. */
  #scaledInput(group: LinearGroup, part: LinearPart, step: PackedStep, { x, numRows, isHead }: LinearInput): number {
    const { activations, kernels, stream, spec, dtype } = this.#context
    const scaled = activations.address('scaled')
    const { addresses } = step
    const params = kernels.params().pointer(countAddress(step, isHead ? 'logitRows' : 'tokens'))
    params
      .pointer(isHead ? addresses.logitAdapters : addresses.adapters)
      .pointer(x)
      .pointer(scaled)
    params.int(group.numIn).int(siteIndex(spec, part.site))
    const grid = [Math.ceil(group.numIn / SCALE_COLUMNS), numRows] as const
    kernels.launch(stream, `input_scale_${DTYPES[dtype].suffix}`, grid, [SCALE_THREADS])
    return scaled
  }

  /** Queues the shrink on the side stream; returns the number of partial sums. */
  #shrink(group: LinearGroup, { addresses, features, ...step }: PackedStep, { x, numRows, isHead }: LinearInput): number {
    const { kernels, activations, stream, spec, dtype } = this.#context
    const numTiles = isHead ? features.numLogitTiles : features.numTiles
    const { numSplits, columnsPerSplit } = this.#splitsOf(group, numTiles)
    activations.reserve('shrink', numSplits * numRows * features.shrinkStride * FLOAT_BYTES)
    this.#inputIsThere.record(stream)
    this.#side.waitFor(this.#inputIsThere)
    const params = kernels.params().pointer(addresses.header)
    params.pointer(countAddress({ addresses, features, ...step }, isHead ? 'logitTiles' : 'tiles'))
    params
      .pointer(isHead ? addresses.logitTiles : addresses.tiles)
      .pointer(x)
      .pointer(activations.address('shrink'))
    params.int(group.numIn).int(columnsPerSplit).int(numRows).int(group.parts.length)
    params.ints(
      group.parts.map(({ site }) => siteIndex(spec, site)),
      MAX_PARTS,
    )
    const variant = features.tileSize === 'long' ? 'long' : group.parts.length === 1 ? 'one' : 'many'
    const name = `shrink_${variant}_${DTYPES[dtype].suffix}`
    kernels.launch(this.#side, name, [numTiles, numSplits], [SHRINK_THREADS])
    this.#shrinkIsDone.record(this.#side)
    return numSplits
  }

  #expand(group: LinearGroup, step: PackedStep, { y, numRows, isHead }: LinearInput, numSplits: number): void {
    const { kernels, activations, stream, spec, dtype } = this.#context
    const { addresses, features } = step
    const params = kernels.params().pointer(addresses.header)
    params.pointer(countAddress(step, isHead ? 'logitTiles' : 'tiles'))
    params
      .pointer(isHead ? addresses.logitTiles : addresses.tiles)
      .pointer(activations.address('shrink'))
      .pointer(y)
    params.long(group.numOut).int(numSplits).int(numRows).int(group.parts.length)
    params.ints(
      group.parts.map(({ site }) => siteIndex(spec, site)),
      MAX_PARTS,
    )
    params.ints(
      group.parts.map(({ firstColumn }) => firstColumn),
      MAX_PARTS,
    )
    params.ints(
      group.parts.map(({ numOut }) => numOut),
      MAX_PARTS,
    )
    const numBlocks = group.parts.reduce((sum, { numOut }) => sum + Math.ceil(numOut / EXPAND_COLUMNS), 0)
    const isSingle = features.tileSize === 'single' && !isHead
    const name = `expand${isHead ? '_logits' : isSingle ? '_single' : ''}_${DTYPES[dtype].suffix}`
    const numTiles = isHead ? features.numLogitTiles : features.numTiles
    const numRowGroups = isSingle ? 1 : TILE_ROWS[features.tileSize] / EXPAND_ROWS
    kernels.launch(stream, name, [numTiles, numBlocks, numRowGroups], [EXPAND_THREADS])
  }

  /** One product with the adapter's own weight over what the base product wrote for its rows. */
  #replace(group: LinearGroup, part: LinearPart, step: PackedStep, input: LinearInput, run: ReplacedRun): void {
    const offset = run.adapter.features.replacedLinears.get(part.site)
    if (offset === undefined) return
    const { matmul, stream, dtype } = this.#context
    const { numBytes } = DTYPES[dtype]
    const outBytes = input.isHead ? FLOAT_BYTES : numBytes
    const { numIn, numOut, bias } = group
    const isScaled = (step.features.scaledGroups & groupBit(group.name)) !== 0
    const x = isScaled ? this.#scaledInput(group, part, step, input) : input.x
    const shape = {
      numRows: run.numRows,
      numIn,
      numOut: part.numOut,
      ldOut: numOut,
      hasBias: bias !== 0,
      isFloatOut: input.isHead,
    }
    matmul.run(stream, shape, {
      x: x + run.firstRow * numIn * numBytes,
      weight: run.adapter.slab + offset,
      y: input.y + (run.firstRow * numOut + part.firstColumn) * outBytes,
      bias: bias === 0 ? 0 : bias + part.firstColumn * outBytes,
    })
  }

  #headRows(group: LinearGroup, step: PackedStep, input: LinearInput): void {
    const { kernels, stream, dtype } = this.#context
    const [part] = group.parts
    invariant(part !== undefined, 'the head is one linear')
    const isScaled = (step.features.scaledGroups & groupBit('head')) !== 0
    const x = isScaled ? this.#scaledInput(group, part, step, input) : input.x
    const params = kernels.params().pointer(countAddress(step, 'logitRows')).pointer(step.addresses.logitAdapters)
    params.pointer(x).pointer(group.bias).pointer(input.y).int(group.numIn).int(group.numOut)
    kernels.launch(stream, `head_rows_${DTYPES[dtype].suffix}`, [input.numRows, HEAD_BLOCKS], [HEAD_THREADS])
  }

  /** Enough blocks to fill the device, none with less to read than a warp's loads. */
  #splitsOf({ numIn, parts }: LinearGroup, numTiles: number): { readonly numSplits: number; readonly columnsPerSplit: number } {
    const perMultiprocessor = SHRINK_BLOCKS_PER_MULTIPROCESSOR[parts.length === 1 ? 'one' : 'many']
    const wanted = perMultiprocessor * this.#context.device.facts.numMultiprocessors
    const most = Math.ceil(numIn / MIN_SPLIT_COLUMNS)
    const splits = Math.max(1, Math.min(most, Math.ceil(wanted / Math.max(1, numTiles))))
    const columnsPerSplit = Math.ceil(numIn / splits / SPLIT_STEP) * SPLIT_STEP
    return { numSplits: Math.ceil(numIn / columnsPerSplit), columnsPerSplit }
  }
}

/** Blocks that share the own head rows of one logit row's adapter. */
const HEAD_BLOCKS = 8
const HEAD_THREADS = 256

const COUNTS = { tokens: 0, logitRows: 1, tiles: 2, logitTiles: 3 } as const

/** Address of a count in the step's header. */
export function countAddress({ addresses }: PackedStep, count: keyof typeof COUNTS): number {
  return addresses.header + COUNTS[count] * Int32Array.BYTES_PER_ELEMENT
}

function wholeOf({ name, numOut }: LinearGroup): LinearPart {
  return { site: name, numOut, numStored: numOut, firstColumn: 0 }
}
