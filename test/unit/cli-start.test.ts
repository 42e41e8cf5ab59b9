import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { localUrl } from '../../src/cli/banner.ts'
import { type AdapterEngine, loadStartAdapters } from '../../src/cli/start-adapters.ts'
import { onLostNpm, onTermination, type SignalSource } from '../../src/cli/termination.ts'
import { loadConfig } from '../../src/config/load-config.ts'
import type { AdapterConfig } from '../../src/config.ts'
import { adapterId } from '../../src/core/ids.ts'
import type { AdapterSource } from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'
import { tempDir } from '../support/safetensors-file.ts'

/** Loads everything but what is named in `bad`. */
class ListEngine implements AdapterEngine {
  readonly sources: AdapterSource[] = []
  readonly #bad: ReadonlyMap<string, LorikeetError>

  constructor(bad: Readonly<Record<string, LorikeetError>> = {}) {
    this.#bad = new Map(Object.entries(bad))
  }

  async loadAdapter(source: AdapterSource) {
    const error = this.#bad.get(source.name)
    if (error !== undefined) throw error
    this.sources.push(source)
    const { name, path } = source
    const id = adapterId(this.sources.length)
    return {
      id,
      name,
      path,
      kind: 'LORA',
      digest: '',
      maxRank: 1,
      numVirtualTokens: 0,
      numBytes: 1,
      hostBytes: 0,
      deviceBytes: 0,
      isLoading: false,
      isMixture: false,
      loadedAtMs: 0,
      state: 'loaded' as const,
    }
  }

  get names(): readonly string[] {
    return this.sources.map((source) => source.name)
  }
}

const refusal = (name: string) => new LorikeetError('ADAPTER_REFUSED', { name, field: 'peft_type', reason: 'no' })

function adapterDir(...names: readonly string[]): string {
  const dir = tempDir()
  for (const name of names) {
    mkdirSync(join(dir, name))
    writeFileSync(join(dir, name, 'adapter_config.json'), '{}')
  }
  return dir
}

const adapterConfig = (...args: readonly string[]): AdapterConfig => loadConfig(['base', ...args], {}).config.adapters

describe('adapters at start', () => {
  it('come in order: named ones, then the directory by name', async () => {
    const dir = adapterDir('zebra', 'ant')
    mkdirSync(join(dir, 'notes'))
    symlinkSync(join(dir, 'ant'), join(dir, 'linked'))
    const engine = new ListEngine()
    const { loaded, refused } = await loadStartAdapters(engine, adapterConfig('--adapter', 'm=/x/m', '--adapter-dir', dir), [
      'base',
    ])
    assert.deepEqual(engine.names, ['m', 'ant', 'linked', 'zebra'])
    assert.equal(loaded.length, 4)
    assert.deepEqual(refused, [])
  })

  it('refused in the directory are told, named ones end the start', async () => {
    const dir = adapterDir('good', 'bad')
    const engine = new ListEngine({ bad: refusal('bad') })
    const { refused } = await loadStartAdapters(engine, adapterConfig('--adapter-dir', dir), ['base'])
    assert.deepEqual(engine.names, ['good'])
    assert.deepEqual(refused, [{ name: 'bad', reason: refusal('bad').message }])
    const named = loadStartAdapters(engine, adapterConfig('--adapter', `bad=${join(dir, 'bad')}`), ['base'])
    await assert.rejects(named, { code: 'ADAPTER_REFUSED' })
  })

  it('cannot take a name twice, but may be named twice', async () => {
    const dir = adapterDir('a', 'b', 'base')
    const engine = new ListEngine()
    const config = adapterConfig('--adapter', `a=${join(dir, 'a')}`, 'b=/elsewhere', '--adapter-dir', dir)
    const { refused } = await loadStartAdapters(engine, config, ['base'])
    assert.deepEqual(engine.names, ['a', 'b'])
    assert.deepEqual(
      refused.map((one) => one.name),
      ['b', 'base'],
    )
  })

  it('do not hide that the engine died', async () => {
    const engine = new ListEngine({ a: new LorikeetError('ENGINE_DEAD', { reason: 'x' }) })
    await assert.rejects(loadStartAdapters(engine, adapterConfig('--adapter-dir', adapterDir('a')), []), {
      code: 'ENGINE_DEAD',
    })
  })

  it('need a directory that can be read', async () => {
    const loading = loadStartAdapters(new ListEngine(), adapterConfig('--adapter-dir', '/nowhere'), [])
    await assert.rejects(loading, { code: 'CONFIG_INVALID' })
  })
})

describe('termination', () => {
  class FakeProcess implements SignalSource {
    readonly #listeners = new Map<string, (signal: 'SIGINT' | 'SIGTERM') => void>()
    on(signal: 'SIGINT' | 'SIGTERM', listener: (signal: 'SIGINT' | 'SIGTERM') => void): void {
      this.#listeners.set(signal, listener)
    }
    send(signal: 'SIGINT' | 'SIGTERM'): void {
      this.#listeners.get(signal)?.(signal)
    }
  }

  it('begins once, ignores the echo, ends at the next signal', () => {
    const source = new FakeProcess()
    const events: (string | number)[] = []
    let nowMs = 1000
    onTermination(
      source,
      (signal) => events.push(signal),
      (status) => events.push(status),
      () => nowMs,
    )
    source.send('SIGINT')
    nowMs += 100
    source.send('SIGINT')
    assert.deepEqual(events, ['SIGINT'])
    nowMs += 1000
    source.send('SIGTERM')
    assert.deepEqual(events, ['SIGINT', 143])
  })
})

describe('the shell of npm start', () => {
  it('is missed when it dies, and other parents are not', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] })
    let parent = 7
    const begun: string[] = []
    onLostNpm(
      { npm_lifecycle_event: 'start' },
      () => parent,
      () => begun.push('npm'),
    )
    onLostNpm(
      {},
      () => parent,
      () => begun.push('other'),
    )
    t.mock.timers.tick(250)
    assert.deepEqual(begun, [])
    parent = 1
    t.mock.timers.tick(250)
    assert.deepEqual(begun, ['npm'])
  })
})

it('clients on this machine are given an address they can reach', () => {
  assert.equal(localUrl('http://0.0.0.0:8000', null), 'http://localhost:8000')
  assert.equal(localUrl('http://[::]:8000', null), 'http://localhost:8000')
  assert.equal(localUrl('http://192.168.1.7:80', null), 'http://192.168.1.7')
  assert.equal(localUrl('/run/l.sock', '/run/l.sock'), 'unix:/run/l.sock')
})
