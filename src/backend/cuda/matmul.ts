// Base linears: y = x Wᵀ (+ bias) by cuBLASLt, with one description and one chosen algorithm a shape.

import { LorikeetError } from '../../errors.ts'
import { type Cublas, checkCublas, openCublas } from './cublas.ts'
import type { Device } from './device.ts'
import { CUBLAS_FLOAT32, type CudaDtype, DTYPES } from './dtype.ts'
import type { Stream } from './stream.ts'

/** What NVIDIA recommends for Hopper; split-K algorithms keep partial sums there. */
const WORKSPACE_BYTES = 32 << 20

/** cublasComputeType_t: sums in float32, operands as they are. */
const COMPUTE_32F = 68
const ATTRIBUTE = { transposeA: 3, epilogue: 7, biasPointer: 8 } as const
const TRANSPOSED = Int32Array.of(1)
/** CUBLASLT_EPILOGUE_BIAS. */
const EPILOGUE_BIAS = Int32Array.of(4)
/** CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES. */
const PREFER_WORKSPACE = 1
/** cublasLtMatmulHeuristicResult_t: the algorithm in its first 64 bytes. */
const RESULT_BYTES = 96

const ONE = Float32Array.of(1)
const ZERO = Float32Array.of(0)

export interface MatmulShape {
  readonly numRows: number
  readonly numIn: number
  readonly numOut: number
  /** Elements from one row of y to the next; parts of a group lie side by side. */
  readonly ldOut: number
  readonly hasBias: boolean
  /** Float32 instead of the element type. */
  readonly isFloatOut: boolean
}

export interface MatmulOperands {
  readonly x: number // [numRows, numIn]
  readonly weight: number // [numOut, numIn]
  readonly y: number // [numRows, ldOut]
  /** [numOut]; 0 = none. */
  readonly bias: number
}

interface MatmulPlan {
  readonly description: number
  readonly weight: number
  readonly x: number
  readonly y: number
  readonly algorithm: Uint8Array
}

export class Matmul implements Disposable {
  readonly #cublas: Cublas
  readonly #handle: number
  readonly #preference: number
  readonly #workspace
  readonly #type: number
  readonly #plans = new Map<string, MatmulPlan>()
  readonly #bias = new BigUint64Array(1)

  constructor(device: Device, dtype: CudaDtype) {
    this.#cublas = openCublas()
    this.#type = DTYPES[dtype].cublasType
    this.#handle = create((out) => this.#cublas.cublasLtCreate(out), 'starting cuBLASLt')
    this.#preference = create((out) => this.#cublas.cublasLtMatmulPreferenceCreate(out), 'describing a preference')
    this.#workspace = device.allocate(WORKSPACE_BYTES, "cuBLASLt's workspace")
    const limit = BigUint64Array.of(BigInt(WORKSPACE_BYTES))
    checkCublas(
      this.#cublas.cublasLtMatmulPreferenceSetAttribute(this.#preference, PREFER_WORKSPACE, limit, 8),
      'limiting the workspace',
    )
  }

  /** Queues the product. One stream at a time: the workspace is shared. */
  run(stream: Stream, shape: MatmulShape, { x, weight, y, bias }: MatmulOperands): void {
    const plan = this.#planOf(shape)
    const cublas = this.#cublas
    if (shape.hasBias) {
      this.#bias[0] = BigInt(bias)
      checkCublas(
        cublas.cublasLtMatmulDescSetAttribute(plan.description, ATTRIBUTE.biasPointer, this.#bias, 8),
        'setting a bias',
      )
    }
    const status = cublas.cublasLtMatmul(
      this.#handle,
      plan.description,
      ONE,
      weight,
      plan.weight,
      x,
      plan.x,
      ZERO,
      y,
      plan.y,
      y,
      plan.y,
      plan.algorithm,
      this.#workspace.address,
      WORKSPACE_BYTES,
      stream.handle,
    )
    if (status !== 0) checkCublas(status, `a product of ${describe(shape)}`)
  }

  [Symbol.dispose](): void {
    for (const { description, weight, x, y } of this.#plans.values()) {
      this.#cublas.cublasLtMatmulDescDestroy(description)
      for (const layout of [weight, x, y]) this.#cublas.cublasLtMatrixLayoutDestroy(layout)
    }
    this.#plans.clear()
    this.#cublas.cublasLtMatmulPreferenceDestroy(this.#preference)
    this.#cublas.cublasLtDestroy(this.#handle)
    this.#workspace[Symbol.dispose]()
  }

  #planOf(shape: MatmulShape): MatmulPlan {
    const { numRows, numIn, numOut, ldOut, hasBias, isFloatOut } = shape
    const key = `${numRows} ${numIn} ${numOut} ${ldOut} ${hasBias} ${isFloatOut}`
    const known = this.#plans.get(key)
    if (known !== undefined) return known
    const plan = this.#createPlan(shape)
    this.#plans.set(key, plan)
    return plan
  }

  /** cuBLASLt counts in columns: what is a row here is a column there, so y comes out of W · x with W transposed. */
  #createPlan(shape: MatmulShape): MatmulPlan {
    const cublas = this.#cublas
    const { numRows, numIn, numOut, ldOut } = shape
    const description = create(
      (out) => cublas.cublasLtMatmulDescCreate(out, COMPUTE_32F, CUBLAS_FLOAT32),
      'describing a product',
    )
    checkCublas(cublas.cublasLtMatmulDescSetAttribute(description, ATTRIBUTE.transposeA, TRANSPOSED, 4), 'describing a weight')
    if (shape.hasBias) {
      checkCublas(cublas.cublasLtMatmulDescSetAttribute(description, ATTRIBUTE.epilogue, EPILOGUE_BIAS, 4), 'describing a bias')
    }
    const layout = (type: number, rows: number, columns: number, ld: number): number =>
      create((out) => cublas.cublasLtMatrixLayoutCreate(out, type, rows, columns, ld), 'describing a matrix')
    const weight = layout(this.#type, numIn, numOut, numIn)
    const x = layout(this.#type, numIn, numRows, numIn)
    const y = layout(shape.isFloatOut ? CUBLAS_FLOAT32 : this.#type, numOut, numRows, ldOut)
    const result = new Uint8Array(RESULT_BYTES)
    const numFound = new Int32Array(1)
    const status = cublas.cublasLtMatmulAlgoGetHeuristic(
      this.#handle,
      description,
      weight,
      x,
      y,
      y,
      this.#preference,
      1,
      result,
      numFound,
    )
    checkCublas(status, `choosing an algorithm for ${describe(shape)}`)
    if (numFound[0] === 0) {
      const detail = `cuBLASLt has no algorithm for ${describe(shape)}`
      throw new LorikeetError('BACKEND_FAILED', { backend: 'cuda', detail })
    }
    return { description, weight, x, y, algorithm: result }
  }
}

function describe({ numRows, numIn, numOut }: MatmulShape): string {
  return `${numRows} rows, ${numIn} -> ${numOut}`
}

function create(make: (out: BigUint64Array) => number, what: string): number {
  const out = new BigUint64Array(1)
  checkCublas(make(out), what)
  return Number(out[0])
}
