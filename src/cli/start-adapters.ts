import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { AdapterConfig, StaticAdapter } from '../config.ts'
import { ADAPTER_FILES } from '../core/adapter-files.ts'
import type { AdapterInfo, AdapterSource } from '../engine/messages.ts'
import { asLorikeetError, LorikeetError } from '../errors.ts'

export interface AdapterEngine {
  loadAdapter(source: AdapterSource, replace: boolean): Promise<AdapterInfo>
}

export interface StartedAdapters {
  readonly loaded: readonly AdapterInfo[]
  /** Found in --adapter-dir and not served. */
  readonly refused: readonly RefusedAdapter[]
}

export interface RefusedAdapter {
  readonly name: string
  readonly reason: string
}

/**
 * Loads the adapters of --adapter, then those of --adapter-dir by name, one after the other so that listings have a stable
 * order. Throws the first failure of --adapter; those of the directory are answered.
 */
export async function loadStartAdapters(
  engine: AdapterEngine,
  config: AdapterConfig,
  baseNames: readonly string[],
): Promise<StartedAdapters> {
  const loaded: AdapterInfo[] = []
  const refused: RefusedAdapter[] = []
  for (const adapter of config.adapters) loaded.push(await engine.loadAdapter(sourceOf(adapter), false))
  const taken = new Set([...baseNames, ...config.adapters.map((adapter) => adapter.name)])
  for (const adapter of config.adapterDir === null ? [] : findAdapters(config.adapterDir)) {
    if (config.adapters.some((named) => named.name === adapter.name && resolve(named.path) === resolve(adapter.path))) continue
    if (taken.has(adapter.name)) {
      refused.push({ name: adapter.name, reason: 'another model or adapter has its name' })
      continue
    }
    try {
      loaded.push(await engine.loadAdapter(sourceOf(adapter), false))
    } catch (error) {
      const { code, message } = asLorikeetError(error)
      if (code === 'ENGINE_DEAD') throw error
      refused.push({ name: adapter.name, reason: message })
    }
  }
  return { loaded, refused }
}

function sourceOf({ name, path }: StaticAdapter): AdapterSource {
  return { name, path: resolve(path) }
}

function findAdapters(dir: string): readonly StaticAdapter[] {
  let names: readonly string[]
  try {
    names = readdirSync(dir)
  } catch (cause) {
    throw new LorikeetError(
      'CONFIG_INVALID',
      { option: '--adapter-dir', reason: `cannot read the directory ${dir}` },
      { cause },
    )
  }
  return names
    .map((name) => ({ name, path: join(dir, name) }))
    .filter(({ path }) => ADAPTER_FILES.some((file) => existsSync(join(path, file))))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}
