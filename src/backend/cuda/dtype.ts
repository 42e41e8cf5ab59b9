// Element types of weights, activations and KV on the GPU.

import type { TensorDtype } from '../../model/decoder-spec.ts'

export type CudaDtype = 'bfloat16' | 'float16' | 'float32'

export interface DtypeFacts {
  /** Ending of kernel names. */
  readonly suffix: string
  readonly numBytes: number
  /** cudaDataType. */
  readonly cublasType: number
  /** The same bits in a checkpoint. */
  readonly stored: TensorDtype
}

export const CUBLAS_FLOAT32 = 0

export const DTYPES: Readonly<Record<CudaDtype, DtypeFacts>> = {
  bfloat16: { suffix: 'bf16', numBytes: 2, cublasType: 14, stored: 'BF16' },
  float16: { suffix: 'f16', numBytes: 2, cublasType: 2, stored: 'F16' },
  float32: { suffix: 'f32', numBytes: 4, cublasType: CUBLAS_FLOAT32, stored: 'F32' },
}
