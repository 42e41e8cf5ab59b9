// The tensors of an adapter file, each to be consumed exactly once. What is left over at the end, or missing on the way,
// refuses the adapter: reference loaders drop such tensors with a warning and serve the base model in the adapter's name.

import { basename } from 'node:path'
import {
  elementCount,
  findNonFinite,
  openSafetensors,
  readTensorF32,
  readTensorI32,
  type SafetensorsEntry,
} from '../../../model/safetensors.ts'
import { openTorchFile } from '../../../model/torch-file.ts'
import type { Refuse } from './refuse.ts'

/** Every PEFT writer puts this before the module path of the base model. */
const KEY_PREFIX = 'base_model.model.'

/** Tensors that belong to the whole adapter and to no module keep their full name: `base_model.vera_A`. */
const SHARED_PREFIX = 'base_model.'

/** Tensors of the prompt-learning types, which have no module to be named after. */
const BARE_KEYS: ReadonlySet<string> = new Set([
  'prompt_embeddings',
  'prefix_task_cols',
  'prefix_task_rows',
  'prompt_encoder.lora_embedding_A',
  'prompt_encoder.lora_embedding_B',
])

/** A text-only adapter trained on the multimodal wrapper of the same decoder names its modules this way. */
const ALIASES = [['model.language_model.', 'model.']] as const

/** Floating point counts exactly up to here. */
const MAXIMUM_FLOAT_INDEX = 2 ** 24

export interface Tensor {
  /** Key in the file, for messages. */
  readonly key: string
  readonly shape: readonly number[]
  readonly values: Float32Array
}

/** MoE-PEFT names modules by its own method: `mola.layers.0.self_attn.q_proj`. */
const METHOD_PREFIX = /^(?:mola|loramoe)\.(?=layers\.)/

/** How a writer's keys relate to those its compiler asks for. */
export interface TensorNaming {
  /** Key of a tensor of the file; throws where it is no tensor of this format. */
  keyOf(name: string, refuse: Refuse): string
  /** Name in the file, for messages about a tensor it lacks. */
  nameOf(key: string): string
}

const PEFT_NAMING: TensorNaming = {
  keyOf(name, refuse) {
    if (METHOD_PREFIX.test(name)) return name.replace(METHOD_PREFIX, 'model.')
    if (!name.startsWith(SHARED_PREFIX) && !BARE_KEYS.has(name))
      throw refuse(name, `does not start with ${SHARED_PREFIX}, as every PEFT tensor does`)
    return name.startsWith(KEY_PREFIX) ? modulePath(name.slice(KEY_PREFIX.length)) : name
  },
  nameOf: (key) => (key.startsWith(SHARED_PREFIX) || BARE_KEYS.has(key) ? key : KEY_PREFIX + key),
}

export class TensorSet {
  readonly #refuse: Refuse
  readonly #naming: TensorNaming
  /** By module path and tensor name, or by full name where shared. */
  readonly #entries = new Map<string, SafetensorsEntry>()
  readonly #left = new Set<string>()

  /** Opens the header; weights are read when asked for. Throws SAFETENSORS_INVALID, TORCH_FILE_INVALID or ADAPTER_REFUSED. */
  constructor(path: string, refuse: Refuse, naming: TensorNaming = PEFT_NAMING) {
    this.#refuse = refuse
    this.#naming = naming
    const tensors = path.endsWith('.safetensors') ? openSafetensors(path).tensors : openTorchFile(path)
    for (const entry of tensors.values()) {
      const key = naming.keyOf(entry.name, refuse)
      if (this.#entries.has(key)) throw refuse(entry.name, 'stands for the same parameter as another tensor of the file')
      this.#entries.set(key, entry)
      this.#left.add(key)
    }
    if (this.#entries.size === 0) throw refuse(basename(path), 'the file holds no tensor')
  }

  has(key: string): boolean {
    return this.#entries.has(key)
  }

  /** Whether any tensor belongs to this module or one below it. */
  hasUnder(path: string): boolean {
    for (const key of this.#entries.keys()) if (key.startsWith(`${path}.`)) return true
    return false
  }

  hasEnding(suffix: string): boolean {
    for (const key of this.#entries.keys()) if (key.endsWith(suffix)) return true
    return false
  }

  /** Reads and consumes a tensor that must be there, with this shape. */
  require(key: string, shape: readonly number[]): Tensor {
    return this.take(key, shape) ?? this.#missing(key, shape)
  }

  /** Reads and consumes a tensor; null when the file has none. */
  take(key: string, shape: readonly number[]): Tensor | null {
    const entry = this.#claim(key, shape)
    if (entry === null) return null
    const values = readTensorF32(entry)
    const bad = findNonFinite(values)
    if (bad !== -1) throw this.#refuse(entry.name, `holds ${values[bad]} at element ${bad} of ${elementCount(shape)}`)
    return { key: entry.name, shape, values }
  }

  /** Reads and consumes a tensor of integers that must be there. Some writers store indices as floating point. */
  requireIntegers(key: string, shape: readonly number[]): Int32Array {
    const entry = this.#claim(key, shape) ?? this.#missing(key, shape)
    if (!entry.dtype.includes('F')) return readTensorI32(entry)
    const values = readTensorF32(entry)
    const bad = values.findIndex((value) => Math.abs(value) > MAXIMUM_FLOAT_INDEX || !Number.isInteger(value))
    if (bad !== -1) throw this.#refuse(entry.name, `holds ${values[bad]} at element ${bad}, which is no index`)
    return Int32Array.from(values)
  }

  #missing(key: string, shape: readonly number[]): never {
    throw this.#refuse(this.#naming.nameOf(key), `missing from the file; the config asks for it [${shape.join(', ')}]`)
  }

  #claim(key: string, shape: readonly number[]): SafetensorsEntry | null {
    const entry = this.#entries.get(key)
    if (entry === undefined) return null
    if (!this.#left.delete(key)) throw this.#refuse(entry.name, 'is claimed by two options of the config')
    if (entry.shape.length !== shape.length || entry.shape.some((size, i) => size !== shape[i])) {
      throw this.#refuse(
        entry.name,
        `has shape [${entry.shape.join(', ')}] where this model and config need [${shape.join(', ')}]; is it an adapter of another base model?`,
      )
    }
    return entry
  }

  /** First size of a tensor's shape, unread; null when the file has none. */
  leadingSize(key: string): number | null {
    return this.shape(key)?.[0] ?? null
  }

  /** A tensor's shape, unread; null when the file has none. */
  shape(key: string): readonly number[] | null {
    return this.#entries.get(key)?.shape ?? null
  }

  /** Consumes, unread, the tensors whose key ends so: state of the trainer. */
  skip(suffix: string): void {
    for (const key of [...this.#left]) if (key.endsWith(suffix)) this.#left.delete(key)
  }

  /** Consumes, unread, second copies of tensors that were read under another key. */
  skipMatching(pattern: RegExp): void {
    for (const key of [...this.#left]) if (pattern.test(key)) this.#left.delete(key)
  }

  /** Refuses the adapter when a tensor was consumed by nobody. */
  finish(): void {
    const [first] = this.#left
    if (first === undefined) return
    const name = this.#entries.get(first)?.name ?? first
    const others = this.#left.size === 1 ? '' : ` (and ${this.#left.size - 1} more)`
    throw this.#refuse(
      name,
      `belongs to no module that the config targets in this model${others}; is it an adapter of another base model?`,
    )
  }
}

function modulePath(key: string): string {
  for (const [alias, canonical] of ALIASES) if (key.startsWith(alias)) return canonical + key.slice(alias.length)
  return key
}
