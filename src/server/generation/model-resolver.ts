// From the names a client gives to the base model or one adapter. All dialects end here.

import type { AdapterInfo } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import type { AdapterDirectory } from './adapter-directory.ts'
import type { EnginePort } from './engine-port.ts'

export interface ModelNames {
  /** OpenAI's `model`: a base name, an adapter, or SGLang's `base:adapter`. */
  readonly model: string | null
  /** SGLang's `lora_path`: an adapter's name. */
  readonly loraPath: string | null
}

export class ModelResolver {
  readonly #engine: EnginePort
  readonly #servedNames: readonly string[]
  readonly #directory: AdapterDirectory | null

  /** `directory` finds adapters nobody has loaded yet; null = only loaded ones exist. */
  constructor(engine: EnginePort, servedNames: readonly string[], directory: AdapterDirectory | null) {
    this.#engine = engine
    this.#servedNames = servedNames
    this.#directory = directory
  }

  /** First name of the base model. */
  get baseName(): string {
    return this.#servedNames[0] as string
  }

  isBaseName(name: string): boolean {
    return this.#servedNames.includes(name)
  }

  /** The adapter to run, null for the base model. Throws MODEL_NOT_FOUND, or why an adapter that was found cannot be loaded. */
  async resolve(names: ModelNames): Promise<AdapterInfo | null> {
    const fromModel = await this.#resolveModel(names.model)
    if (!names.loraPath) return fromModel
    const fromPath = await this.#findAdapter(names.loraPath, 'lora_path')
    if (fromModel !== null && fromModel.id !== fromPath.id) {
      const reason = `names '${fromPath.name}' while model names '${fromModel.name}'; one request runs one adapter`
      throw new LorikeetError('FIELD_INVALID', { field: 'lora_path', reason })
    }
    return fromPath
  }

  async #resolveModel(model: string | null): Promise<AdapterInfo | null> {
    if (!model || this.isBaseName(model)) return null
    const loaded = this.#engine.findAdapter(model)
    if (loaded !== null) return loaded
    // A base name may hold colons itself (`llama3:8b`), so every colon is a place to split at.
    for (let colon = model.indexOf(':'); colon >= 0; colon = model.indexOf(':', colon + 1)) {
      if (this.isBaseName(model.slice(0, colon))) return this.#findAdapter(model.slice(colon + 1), 'model')
    }
    return this.#findAdapter(model, 'model')
  }

  async #findAdapter(name: string, field: string): Promise<AdapterInfo> {
    const found = this.#engine.findAdapter(name) ?? (await this.#directory?.load(name)) ?? null
    if (found === null) throw new LorikeetError('MODEL_NOT_FOUND', { model: name }, { field })
    return found
  }
}
