// Tables of ops with one entry an adapter. One adapter's are fed as they lie in memory; several are copied side by side when the
// step's adapters change, which is seldom.

import { Tensor } from 'onnxruntime-node'
import { at } from '../../../core/invariant.ts'
import type { Extra, ExtraOp, Table, TableShape } from './extra.ts'

interface Merged {
  readonly extras: readonly Extra[]
  readonly tensors: ReadonlyMap<string, Tensor>
}

export class OpTables {
  readonly #ofOne = new WeakMap<Table, Tensor>()
  /** By op key: what was fed last. */
  readonly #merged = new Map<string, Merged>()
  /** Zeros for ops that the session has and no adapter of the step. */
  #zeros: { readonly floats: Float32Array; readonly ints: Int32Array } = {
    floats: new Float32Array(0),
    ints: new Int32Array(0),
  }
  readonly #unused = new Map<string, { readonly zeros: unknown; readonly tensors: ReadonlyMap<string, Tensor> }>()

  /** Tensors by table name, entries in the order of `extras`. */
  tensorsOf(op: ExtraOp, extras: readonly Extra[]): ReadonlyMap<string, Tensor> {
    const [first, second] = extras
    if (first === undefined) return this.#zeroTensors(op)
    if (second === undefined) return new Map([...first.tables].map(([name, table]) => [name, this.#tensorOfOne(table)]))
    const last = this.#merged.get(op.key)
    if (last?.extras.length === extras.length && extras.every((extra, i) => extra === last.extras[i])) return last.tensors
    const tensors = new Map(
      [...op.tables.keys()].map((name) => [name, mergedTensor(extras.map(({ tables }) => tableNamed(tables, name)))]),
    )
    this.#merged.set(op.key, { extras, tensors })
    return tensors
  }

  /** Lets go of copies of an adapter that leaves. */
  forget(left: readonly Extra[]): void {
    for (const extra of left) {
      if (this.#merged.get(extra.op.key)?.extras.includes(extra)) this.#merged.delete(extra.op.key)
    }
  }

  #tensorOfOne(table: Table): Tensor {
    let tensor = this.#ofOne.get(table)
    if (tensor === undefined) {
      tensor = tensorOf(table.values, [1, ...table.dims])
      this.#ofOne.set(table, tensor)
    }
    return tensor
  }

  #zeroTensors(op: ExtraOp): ReadonlyMap<string, Tensor> {
    const known = this.#unused.get(op.key)
    if (known !== undefined && known.zeros === this.#zeros) return known.tensors
    const most = Math.max(0, ...[...op.tables.values()].map(sizeOfUnused))
    if (this.#zeros.floats.length < most) this.#zeros = { floats: new Float32Array(most), ints: new Int32Array(most) }
    const tensors = new Map(
      [...op.tables].map(([name, shape]) => {
        const dims = [1, ...unusedDims(shape)]
        const zeros = shape.type === 'float32' ? this.#zeros.floats : this.#zeros.ints
        return [name, tensorOf(zeros.subarray(0, sizeOfUnused(shape)), dims)]
      }),
    )
    this.#unused.set(op.key, { zeros: this.#zeros, tensors })
    return tensors
  }
}

function tableNamed(tables: ReadonlyMap<string, Table>, name: string): Table {
  return at(
    [tables.get(name)].filter((table) => table !== undefined),
    0,
  )
}

function mergedTensor(tables: readonly Table[]): Tensor {
  const first = at(tables, 0)
  const dims = first.dims.map((_, axis) => Math.max(...tables.map((each) => at(each.dims, axis))))
  const size = sizeOf(dims)
  const isFloat = first.values instanceof Float32Array
  const all = isFloat ? new Float32Array(tables.length * size) : new Int32Array(tables.length * size)
  for (const [entry, { values, dims: own }] of tables.entries()) copyInto(all, entry * size, dims, values, 0, own)
  return tensorOf(all, [tables.length, ...dims])
}

/** Copies an array into the leading corner of a larger one, runs of equal rows at once. */
function copyInto(
  target: Float32Array | Int32Array,
  targetStart: number,
  targetDims: readonly number[],
  source: Float32Array | Int32Array,
  sourceStart: number,
  sourceDims: readonly number[],
): void {
  const inner = sourceDims.slice(1)
  if (inner.every((dim, axis) => dim === targetDims[axis + 1])) {
    target.set(source.subarray(sourceStart, sourceStart + sizeOf(sourceDims)), targetStart)
    return
  }
  const [targetStep, sourceStep] = [sizeOf(targetDims.slice(1)), sizeOf(inner)]
  for (let i = 0; i < at(sourceDims, 0); i++) {
    copyInto(target, targetStart + i * targetStep, targetDims.slice(1), source, sourceStart + i * sourceStep, inner)
  }
}

function tensorOf(values: Float32Array | Int32Array, dims: readonly number[]): Tensor {
  return values instanceof Float32Array ? new Tensor('float32', values, dims) : new Tensor('int32', values, dims)
}

function unusedDims({ dims }: TableShape): readonly number[] {
  return dims.map((dim) => dim ?? 1)
}

function sizeOfUnused(shape: TableShape): number {
  return sizeOf(unusedDims(shape))
}

function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1)
}
