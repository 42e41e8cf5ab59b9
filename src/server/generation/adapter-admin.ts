// Loading and unloading adapters on a client's word: what may be named, and which paths may be read.

import { realpath, stat } from 'node:fs/promises'
import { isAbsolute, resolve, sep } from 'node:path'
import type { AdapterInfo } from '../../engine/messages.ts'
import { asLorikeetError, LorikeetError } from '../../errors.ts'
import type { EnginePort } from './engine-port.ts'
import type { KeyedLock } from './keyed-lock.ts'

// Long enough for organisation/name/revision; names appear in every log line and metric.
const MAX_NAME_CHARS = 256

export interface AdapterLoad {
  readonly name: string
  readonly path: string
  /** Replaces an adapter of that name; its running requests finish on the old weights. */
  readonly isReplacing: boolean
}

/** What the engine's list does not show: a load under way, and one that failed. */
export type LoadEvent =
  | { readonly type: 'loading'; readonly name: string; readonly path: string }
  | { readonly type: 'failed'; readonly name: string; readonly path: string; readonly error: LorikeetError }

export class AdapterAdmin {
  readonly #engine: EnginePort
  readonly #lock: KeyedLock
  readonly #isBaseName: (name: string) => boolean
  readonly #allowedPrefixes: readonly string[]
  readonly #listeners = new Set<(event: LoadEvent) => void>()

  /** `allowedPrefixes` empty = any path. */
  constructor(engine: EnginePort, lock: KeyedLock, isBaseName: (name: string) => boolean, allowedPrefixes: readonly string[]) {
    this.#engine = engine
    this.#lock = lock
    this.#isBaseName = isBaseName
    this.#allowedPrefixes = allowedPrefixes
  }

  /** Resolves when the next request can use the adapter. Throws ADAPTER_* errors. */
  async load({ name, path, isReplacing }: AdapterLoad): Promise<AdapterInfo> {
    this.#checkName(name)
    return this.#lock.run(name, async () => {
      if (this.#engine.findAdapter(name) !== null && !isReplacing) throw new LorikeetError('ADAPTER_NAME_TAKEN', { name })
      return this.#load(name, await this.#resolvePath(name, path), isReplacing)
    })
  }

  /** The adapter in the directory `path`, under its real path for a name; loads it unless it is loaded. Throws ADAPTER_* errors. */
  async loadPath(path: string): Promise<AdapterInfo> {
    // Two ways to write one path must not become two adapters.
    const name = await this.#resolvePath(path, path)
    this.#checkName(name)
    return this.#lock.run(name, async () => this.#engine.findAdapter(name) ?? this.#load(name, name, false))
  }

  /** Calls back when a load begins or fails after its path was found good; returns how to stop that. */
  onLoad(listener: (event: LoadEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #load(name: string, path: string, isReplacing: boolean): Promise<AdapterInfo> {
    const tell = (event: LoadEvent) => {
      for (const listener of this.#listeners) listener(event)
    }
    tell({ type: 'loading', name, path })
    try {
      return await this.#engine.loadAdapter({ name, path }, isReplacing)
    } catch (thrown) {
      tell({ type: 'failed', name, path, error: asLorikeetError(thrown) })
      throw thrown
    }
  }

  /** New requests no longer find the adapter; running ones finish. Throws ADAPTER_NOT_LOADED. */
  async unload(name: string): Promise<void> {
    return this.#lock.run(name, async () => {
      if (this.#engine.findAdapter(name) === null)
        throw new LorikeetError('ADAPTER_NOT_LOADED', { name }, { field: 'lora_name' })
      await this.#engine.unloadAdapter(name)
    })
  }

  #checkName(name: string): void {
    const refuse = (reason: string) => {
      const shown = name.slice(0, MAX_NAME_CHARS)
      return new LorikeetError('ADAPTER_NAME_INVALID', { name: shown, reason }, { field: 'lora_name' })
    }
    if (name.trim() === '') throw refuse('it is empty')
    if (name.length > MAX_NAME_CHARS) throw refuse(`it has more than ${MAX_NAME_CHARS} characters`)
    // Lists of adapter names in metrics are separated by commas.
    if (/[,\p{Cc}]/u.test(name)) throw refuse('commas and control characters are not allowed')
    if (this.#isBaseName(name)) throw refuse('it is the name of the base model')
  }

  /** The real path. Whether something exists outside the allowed prefixes is not told. */
  async #resolvePath(name: string, path: string): Promise<string> {
    if (!isAbsolute(path)) throw forbidden('must be an absolute path')
    const found = await realDirectory(path)
    const prefixes = await Promise.all(this.#allowedPrefixes.map((prefix) => realpath(prefix).catch(() => resolve(prefix))))
    const isAllowed = prefixes.length === 0 || prefixes.some((prefix) => isInside(found ?? resolve(path), prefix))
    if (!isAllowed) throw forbidden('is outside the directories this server may load from')
    if (found === null) throw new LorikeetError('ADAPTER_NOT_FOUND', { name, path }, { field: 'lora_path' })
    return found
  }
}

async function realDirectory(path: string): Promise<string | null> {
  try {
    const real = await realpath(path)
    return (await stat(real)).isDirectory() ? real : null
  } catch {
    return null
  }
}

function isInside(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep)
}

function forbidden(reason: string): LorikeetError {
  return new LorikeetError('ADAPTER_PATH_FORBIDDEN', { reason }, { field: 'lora_path' })
}

/** Errors of `load` name vLLM's fields; other dialects have their own. */
export function inFieldsOf(thrown: unknown, fields: { readonly name: string; readonly path: string }): unknown {
  if (!(thrown instanceof LorikeetError)) return thrown
  const field = thrown.field === 'lora_name' ? fields.name : thrown.field === 'lora_path' ? fields.path : null
  if (field === null) return thrown
  if (thrown.code !== 'ADAPTER_PATH_FORBIDDEN') return new LorikeetError(thrown.code, thrown.params, { field, cause: thrown })
  return new LorikeetError('ADAPTER_FIELD_INVALID', { field, reason: thrown.params['reason'] ?? '' }, { field, cause: thrown })
}
