// From the names a client gives to the base model or one adapter. All dialects end here.

import { isAbsolute } from 'node:path'
import type { AdapterInfo } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import { inFieldsOf } from './adapter-admin.ts'
import type { AdapterDirectory } from './adapter-directory.ts'
import type { AdapterMixtures } from './adapter-mixtures.ts'
import type { EnginePort } from './engine-port.ts'

/** LoRAX's `adapter_source`: who finds an adapter that nobody has loaded yet. */
export const ADAPTER_SOURCES = ['hub', 'local', 's3', 'pbase'] as const
export type AdapterSourceName = (typeof ADAPTER_SOURCES)[number]

export interface ModelNames {
  /** OpenAI's `model`: a base name, an adapter, or SGLang's `base:adapter`. */
  readonly model: string | null
  /** SGLang's `lora_path`: an adapter's name. */
  readonly loraPath: string | null
  readonly source?: AdapterSourceName | null
  /** Several adapters with weights, in place of one. */
  readonly adapters?: readonly AdapterShare[]
}

export interface AdapterShare {
  readonly name: string
  readonly weight: number
}

/** One name of an adapter, and the request fields that errors are about. */
export interface AdapterName {
  readonly name: string
  readonly field: string
  readonly source: AdapterSourceName | null
  readonly sourceField: string
}

/** What may be loaded because a request names it. */
export interface AdapterFinders {
  /** By name; null = none. */
  readonly directory: Pick<AdapterDirectory, 'load'> | null
  /** By absolute path; null = not allowed. */
  readonly loadPath: ((path: string) => Promise<AdapterInfo>) | null
  readonly mixtures: AdapterMixtures
}

export class ModelResolver {
  readonly #engine: EnginePort
  readonly #servedNames: readonly string[]
  readonly #finders: AdapterFinders

  constructor(engine: EnginePort, servedNames: readonly string[], finders: AdapterFinders) {
    this.#engine = engine
    this.#servedNames = servedNames
    this.#finders = finders
  }

  /** First name of the base model. */
  get baseName(): string {
    return this.#servedNames[0] as string
  }

  isBaseName(name: string): boolean {
    return this.#servedNames.includes(name)
  }

  /** The adapter to run, null for the base model. Throws MODEL_NOT_FOUND, or why an adapter that was found cannot be loaded. */
  async resolve({ model, loraPath, source = null, adapters = [] }: ModelNames): Promise<AdapterInfo | null> {
    if (adapters.length > 0) {
      if ((model && !this.isBaseName(model)) || loraPath) {
        const reason = 'names adapters beside model or lora_path; name the base model, or nothing, there'
        throw new LorikeetError('FIELD_INVALID', { field: 'adapters', reason }, { field: 'adapters' })
      }
      return this.resolveMixture(adapters, 'adapters', source)
    }
    const adapterName = (name: string, field: string) => ({ name, field, source, sourceField: 'adapter_source' })
    const fromModel = await this.#resolveModel(model, (name) => this.#findAdapter(adapterName(name, 'model')))
    if (!loraPath) return fromModel
    const fromPath = await this.#findAdapter(adapterName(loraPath, 'lora_path'))
    if (fromModel !== null && fromModel.id !== fromPath.id) {
      const reason = `names '${fromPath.name}' while model names '${fromModel.name}'; one request runs one adapter`
      throw new LorikeetError('FIELD_INVALID', { field: 'lora_path', reason })
    }
    return fromPath
  }

  /** The weighted sum of several adapters, each found as one would be. */
  async resolveMixture(shares: readonly AdapterShare[], field: string, source: AdapterSourceName | null): Promise<AdapterInfo> {
    const members = await Promise.all(
      shares.map(async ({ name, weight }) => ({
        adapter: await this.#findAdapter({ name, field, source, sourceField: 'adapter_source' }),
        weight,
      })),
    )
    return this.#finders.mixtures.find(members, field)
  }

  /** The same for a dialect with a field for the adapter alone, where a base name means none. */
  async resolveAdapter(adapter: AdapterName): Promise<AdapterInfo | null> {
    return this.isBaseName(adapter.name) ? null : this.#findAdapter(adapter)
  }

  async #resolveModel(model: string | null, find: (name: string) => Promise<AdapterInfo>): Promise<AdapterInfo | null> {
    if (!model || this.isBaseName(model)) return null
    const loaded = this.#engine.findAdapter(model)
    if (loaded !== null) return loaded
    // A base name may hold colons itself (`llama3:8b`), so every colon is a place to split at.
    for (let colon = model.indexOf(':'); colon >= 0; colon = model.indexOf(':', colon + 1)) {
      if (this.isBaseName(model.slice(0, colon))) return find(model.slice(colon + 1))
    }
    return find(model)
  }

  async #findAdapter(adapter: AdapterName): Promise<AdapterInfo> {
    const { name, field } = adapter
    const found = this.#engine.findAdapter(name) ?? (await this.#load(adapter))
    if (found === null) throw new LorikeetError('MODEL_NOT_FOUND', { model: name }, { field })
    return found
  }

  async #load({ name, field, source, sourceField }: AdapterName): Promise<AdapterInfo | null> {
    if (source === 's3' || source === 'pbase') {
      const reason = `adapters come from this server's disk: load '${name}' first, or name a directory with source local`
      throw new LorikeetError('FIELD_UNSUPPORTED', { field: sourceField, reason })
    }
    const { directory, loadPath } = this.#finders
    if (source !== 'local' || !isAbsolute(name)) return (await directory?.load(name)) ?? null
    if (loadPath === null) throw new LorikeetError('RUNTIME_LOADING_DISABLED', {}, { field })
    try {
      return await loadPath(name)
    } catch (thrown) {
      throw inFieldsOf(thrown, { name: field, path: field })
    }
  }
}
