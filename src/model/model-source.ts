import type { DecoderSpec, ParameterName, TensorDtype, TensorRef } from './decoder-spec.ts'
import type { ModuleMap } from './module-map.ts'

/** An opened model directory: the spec, where every parameter's bytes are, and how adapters name its modules. Reads are synchronous: worker threads only. */
export interface ModelSource {
  readonly path: string
  readonly spec: DecoderSpec
  readonly modules: ModuleMap
  /** Dtype of most weights. */
  readonly dtype: TensorDtype
  readonly eosTokenIds: readonly number[]
  readonly totalBytes: number
  /** Canonical name -> bytes. Biases exist only where the checkpoint has them. */
  readonly parameters: ReadonlyMap<ParameterName, TensorRef>
  /** Canonical float32 array: linears [out, in]. Throws MODEL_INVALID when absent. */
  read(name: ParameterName): Float32Array
}
