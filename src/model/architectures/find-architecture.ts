import type { ConfigReader } from '../config-reader.ts'
import type { Architecture } from './architecture.ts'
import { gemma2 } from './gemma2.ts'
import { gemma3 } from './gemma3.ts'
import { gpt2 } from './gpt2.ts'
import { llama } from './llama.ts'
import { mistral } from './mistral.ts'
import { mixtral } from './mixtral.ts'
import { olmo2 } from './olmo2.ts'
import { phi3 } from './phi3.ts'
import { qwen2 } from './qwen2.ts'
import { qwen3 } from './qwen3.ts'
import { qwen3Moe } from './qwen3-moe.ts'

const ARCHITECTURES: readonly Architecture[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
  gemma3,
  olmo2,
  phi3,
  gpt2,
  mixtral,
  qwen3Moe,
]

/** By `model_type`. Throws MODEL_UNSUPPORTED with the list of those served. */
export function findArchitecture(config: ConfigReader): Architecture {
  const modelType = config.string('model_type')
  const found = ARCHITECTURES.find((architecture) => architecture.modelTypes.includes(modelType))
  if (found !== undefined) return found
  const served = ARCHITECTURES.flatMap((architecture) => architecture.modelTypes)
  throw config.unsupported('model_type', `it must be one of ${served.join(', ')}`)
}
