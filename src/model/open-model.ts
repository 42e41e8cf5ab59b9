import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { findArchitecture } from './architectures/find-architecture.ts'
import { modelInvalid, openCheckpoint, readJsonObject } from './checkpoint.ts'
import { ConfigReader } from './config-reader.ts'
import type { ParameterName, TensorDtype, TensorRef } from './decoder-spec.ts'
import type { ModelSource } from './model-source.ts'
import { elementCount, findNonFinite, readTensorF32 } from './safetensors.ts'
import { BYTES_PER_ELEMENT, mapWeights } from './weight-map.ts'

/**
 * Opens a model directory: config.json, generation_config.json where there is one, and the weights' headers. No weight is
 * read yet. Throws MODEL_INVALID, MODEL_UNSUPPORTED or SAFETENSORS_INVALID.
 */
export function openModel(dir: string): ModelSource {
  const config = new ConfigReader(readJsonObject(join(dir, 'config.json')))
  const description = findArchitecture(config).describe(config)
  const parameters = mapWeights(description, openCheckpoint(dir))
  return {
    path: dir,
    spec: description.spec,
    modules: new Map(description.modules.map((module) => [module.path, module])),
    dtype: mostCommonDtype(parameters),
    eosTokenIds: readEosTokenIds(dir, config),
    totalBytes: [...parameters.values()].reduce((total, ref) => total + refBytes(ref), 0),
    parameters,
    read: (name) => readParameter(parameters, name),
  }
}

/** generation_config.json decides; config.json is asked only where that says nothing (HF's own order). */
function readEosTokenIds(dir: string, config: ConfigReader): readonly number[] {
  const path = join(dir, 'generation_config.json')
  const generation = existsSync(path) ? new ConfigReader(readJsonObject(path)) : null
  return (generation?.has('eos_token_id') ? generation : config).integers('eos_token_id')
}

function readParameter(parameters: ReadonlyMap<ParameterName, TensorRef>, name: ParameterName): Float32Array {
  const ref = parameters.get(name)
  if (ref === undefined) throw modelInvalid(`there is no parameter ${name}`)
  const stored = readTensorF32(ref)
  const badIndex = findNonFinite(stored)
  if (badIndex !== -1) throw modelInvalid(`parameter ${name} holds ${stored[badIndex]} at element ${badIndex} (${ref.file})`)
  return ref.isTransposed ? transposeRows(stored, ref) : stored
}

/** Canonical rows of a tensor stored [in, out]. */
function transposeRows(stored: Float32Array, ref: TensorRef): Float32Array {
  const [numIn = 0, numOut = 0] = ref.shape
  const [start, end] = ref.transposedRows ?? [0, numOut]
  const out = new Float32Array((end - start) * numIn)
  for (let row = start; row < end; row++) {
    for (let column = 0; column < numIn; column++) {
      out[(row - start) * numIn + column] = stored[column * numOut + row] as number
    }
  }
  return out
}

function refBytes(ref: TensorRef): number {
  const elements = elementCount(ref.shape)
  const [, numOut = 1] = ref.shape
  const share = ref.transposedRows === null ? 1 : (ref.transposedRows[1] - ref.transposedRows[0]) / numOut
  return elements * share * BYTES_PER_ELEMENT[ref.dtype]
}

/** By bytes: a BF16 checkpoint may keep its norms in F32. */
function mostCommonDtype(parameters: ReadonlyMap<ParameterName, TensorRef>): TensorDtype {
  const bytesOf = new Map<TensorDtype, number>()
  for (const ref of parameters.values()) bytesOf.set(ref.dtype, (bytesOf.get(ref.dtype) ?? 0) + refBytes(ref))
  const [most] = [...bytesOf].sort(([, a], [, b]) => b - a)
  return most?.[0] ?? 'F32'
}
