import type { ConfigReader } from '../config-reader.ts'
import type { DecoderSpec } from '../decoder-spec.ts'
import type { ModuleInfo } from '../module-map.ts'

/** One model family: reads config.json, says what is computed and which tensors hold it. */
export interface Architecture {
  /** HF `model_type` values it answers to. */
  readonly modelTypes: readonly string[]
  /** Throws MODEL_UNSUPPORTED for any setting that changes the maths and is not honoured. */
  describe(config: ConfigReader): ModelDescription
}

export interface ModelDescription {
  readonly spec: DecoderSpec
  readonly modules: readonly ModuleInfo[]
  /** Prefix that checkpoints saved from the headless class lack. */
  readonly basePrefix: string
  /** Where a module's weight may lie instead of `<path>.weight`, by module path. */
  readonly otherHomes: ReadonlyMap<string, TensorHome>
  /** Buffers that old checkpoints carry and nothing reads. */
  readonly ignoredTensors: readonly RegExp[]
}

/** Part of another tensor: `shape` is the whole of it; the part's rows start at `rowStart`, leading dimensions flattened. */
export interface TensorHome {
  readonly tensor: string
  readonly shape: readonly number[]
  readonly rowStart: number
}
