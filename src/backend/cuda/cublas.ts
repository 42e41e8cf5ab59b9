// cuBLASLt as this backend uses it: declarations only, and its statuses as errors.

import { LorikeetError } from '../../errors.ts'
import { bindLibrary, type Status } from './driver.ts'

export interface Cublas {
  cublasLtCreate(handle: BigUint64Array): Status
  cublasLtDestroy(handle: number): Status
  cublasLtMatmulDescCreate(description: BigUint64Array, computeType: number, scaleType: number): Status
  cublasLtMatmulDescSetAttribute(
    description: number,
    attribute: number,
    value: Int32Array | BigUint64Array,
    numBytes: number,
  ): Status
  cublasLtMatmulDescDestroy(description: number): Status
  cublasLtMatrixLayoutCreate(layout: BigUint64Array, type: number, rows: number, columns: number, ld: number): Status
  cublasLtMatrixLayoutDestroy(layout: number): Status
  cublasLtMatmulPreferenceCreate(preference: BigUint64Array): Status
  cublasLtMatmulPreferenceSetAttribute(preference: number, attribute: number, value: BigUint64Array, numBytes: number): Status
  cublasLtMatmulPreferenceDestroy(preference: number): Status
  cublasLtMatmulAlgoGetHeuristic(
    handle: number,
    description: number,
    a: number,
    b: number,
    c: number,
    d: number,
    preference: number,
    numRequested: number,
    results: Uint8Array,
    numFound: Int32Array,
  ): Status
  cublasLtMatmul(
    handle: number,
    description: number,
    alpha: Float32Array,
    aAddress: number,
    a: number,
    bAddress: number,
    b: number,
    beta: Float32Array,
    cAddress: number,
    c: number,
    dAddress: number,
    d: number,
    algorithm: Uint8Array,
    workspace: number,
    workspaceBytes: number,
    stream: number,
  ): Status
}

const SIGNATURES: Readonly<Record<keyof Cublas, string>> = {
  cublasLtCreate: 'void *handle',
  cublasLtDestroy: 'uint64_t handle',
  cublasLtMatmulDescCreate: 'void *description, int computeType, int scaleType',
  cublasLtMatmulDescSetAttribute: 'uint64_t description, int attribute, void *value, size_t numBytes',
  cublasLtMatmulDescDestroy: 'uint64_t description',
  cublasLtMatrixLayoutCreate: 'void *layout, int type, uint64_t rows, uint64_t columns, int64_t ld',
  cublasLtMatrixLayoutDestroy: 'uint64_t layout',
  cublasLtMatmulPreferenceCreate: 'void *preference',
  cublasLtMatmulPreferenceSetAttribute: 'uint64_t preference, int attribute, void *value, size_t numBytes',
  cublasLtMatmulPreferenceDestroy: 'uint64_t preference',
  cublasLtMatmulAlgoGetHeuristic:
    'uint64_t handle, uint64_t description, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t preference, int numRequested, void *results, void *numFound',
  cublasLtMatmul:
    'uint64_t handle, uint64_t description, void *alpha, uint64_t aAddress, uint64_t a, uint64_t bAddress, uint64_t b, void *beta, uint64_t cAddress, uint64_t c, uint64_t dAddress, uint64_t d, void *algorithm, uint64_t workspace, size_t workspaceBytes, uint64_t stream',
}

/** cublasStatus_t. */
const STATUS_NAMES: Readonly<Record<number, string>> = {
  1: 'CUBLAS_STATUS_NOT_INITIALIZED',
  3: 'CUBLAS_STATUS_ALLOC_FAILED',
  7: 'CUBLAS_STATUS_INVALID_VALUE',
  8: 'CUBLAS_STATUS_ARCH_MISMATCH',
  11: 'CUBLAS_STATUS_MAPPING_ERROR',
  13: 'CUBLAS_STATUS_EXECUTION_FAILED',
  14: 'CUBLAS_STATUS_INTERNAL_ERROR',
  15: 'CUBLAS_STATUS_NOT_SUPPORTED',
}

/** Names of the library, newest first. The first can be set where it lies in no folder of the loader. */
function libraryNames(): readonly string[] {
  const chosen = process.env['CUBLASLT_LIBRARY']
  return [...(chosen ? [chosen] : []), 'libcublasLt.so.13', 'libcublasLt.so.12']
}

/** Throws BACKEND_UNAVAILABLE where the library is missing. */
export function openCublas(): Cublas {
  const advice =
    'install cuBLAS 12 or 13 (package libcublas-13-0, or pip install nvidia-cublas and set CUBLASLT_LIBRARY to its libcublasLt.so.13)'
  return bindLibrary<Cublas>(libraryNames(), SIGNATURES, advice)
}

/** Throws BACKEND_FAILED unless `status` is success. */
export function checkCublas(status: Status, what: string): void {
  if (status === 0) return
  const detail = `${what}: ${STATUS_NAMES[status] ?? `cuBLASLt status ${status}`}`
  throw new LorikeetError('BACKEND_FAILED', { backend: 'cuda', detail })
}
