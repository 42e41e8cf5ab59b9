import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AdapterSource } from '../../src/adapter/adapter-generation.ts'
import { AdapterStore, type AdapterStoreOptions } from '../../src/adapter/adapter-store.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import { type AdapterId, type AdapterSlot, adapterId, adapterSlot } from '../../src/core/ids.ts'
import type { EngineAdapters } from '../../src/engine/engine-adapters.ts'
import { LorikeetError } from '../../src/errors.ts'
import { createRandom } from '../support/random-adapter.ts'

/** Keeps adapters of given sizes within a budget, as a device would, and checks that it is used properly. */
class FakeDevice {
  readonly capacity: { adapterBytes: number }
  readonly resident = new Map<AdapterSlot, CompiledAdapter>()
  /** Bytes still to copy by slot. */
  readonly numBytesLeft = new Map<AdapterSlot, number>()
  failWith: Error | null = null

  constructor(adapterBytes: number) {
    this.capacity = { adapterBytes }
  }

  get usedBytes(): number {
    return [...this.resident.values()].reduce((sum, { numBytes }) => sum + numBytes, 0)
  }

  adapterBytes(adapter: CompiledAdapter): number {
    if (adapter.kind === 'UNSERVABLE')
      throw new LorikeetError('ADAPTER_REFUSED', { name: adapter.name, field: 'site', reason: 'no' })
    return adapter.numBytes
  }

  async prepare(): Promise<void> {}

  loadAdapter(adapter: CompiledAdapter): AdapterSlot | null {
    if (this.failWith !== null) throw this.failWith
    assert.ok(![...this.resident.values()].some(({ id }) => id === adapter.id), 'an adapter is loaded once')
    if (this.usedBytes + adapter.numBytes > this.capacity.adapterBytes) return null
    let slot = 0
    while (this.resident.has(adapterSlot(slot))) slot++
    this.resident.set(adapterSlot(slot), adapter)
    this.numBytesLeft.set(adapterSlot(slot), adapter.numBytes)
    return adapterSlot(slot)
  }

  continueLoad(slot: AdapterSlot, maxBytes: number): boolean {
    const numBytesLeft = Math.max(0, (this.numBytesLeft.get(slot) ?? Number.NaN) - maxBytes)
    this.numBytesLeft.set(slot, numBytesLeft)
    return numBytesLeft === 0
  }

  unloadAdapter(slot: AdapterSlot): void {
    assert.ok(this.resident.delete(slot), `slot ${slot} was loaded`)
  }
}

interface Call {
  readonly source: AdapterSource
  readonly id: AdapterId
  finish(change?: Partial<CompiledAdapter>): void
  fail(error: Error): void
}

/** Loads finish when the test says so. The path is the size in bytes. */
class FakeLoader {
  readonly calls: Call[] = []
  isImmediate = false

  load(source: AdapterSource, id: AdapterId): Promise<CompiledAdapter> {
    return new Promise((resolve, reject) => {
      const finish = (change: Partial<CompiledAdapter> = {}) => resolve({ ...adapterOf(source, id), ...change })
      if (this.isImmediate) finish()
      else this.calls.push({ source, id, finish, fail: reject })
    })
  }

  take(): Call {
    const call = this.calls.shift()
    assert.ok(call !== undefined, 'a load was asked for')
    return call
  }
}

function adapterOf(source: AdapterSource, id: AdapterId): CompiledAdapter {
  return {
    id,
    name: source.name,
    kind: 'LORA',
    digest: `digest of ${source.name}`,
    kvDigest: `kv of ${source.name}`,
    maxRank: 8,
    numBytes: Number(source.path),
    sites: new Map(),
    virtualTokens: null,
    promptCoupling: 'none',
    invocationTokenIds: null,
  }
}

function create(options: { deviceBytes?: number; hostBytes?: number; onChange?: () => void } = {}) {
  const device = new FakeDevice(options.deviceBytes ?? 100)
  const loader = new FakeLoader()
  const storeOptions: AdapterStoreOptions = {
    device,
    loader,
    hostBytes: options.hostBytes ?? 1000,
    clock: () => 1,
    ...(options.onChange === undefined ? {} : { onChange: options.onChange }),
  }
  const store = new AdapterStore(storeOptions)
  const add = async (name: string, bytes = 10, replace = false): Promise<AdapterId> => {
    const registered = store.register({ name, path: String(bytes) }, replace)
    await turn()
    if (!loader.isImmediate) loader.take().finish()
    return (await registered).id
  }
  return { store, device, loader, add }
}

/** Lets settled promises run their callbacks. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

const hasCode = (code: string) => (error: unknown) => error instanceof LorikeetError && error.code === code

describe('AdapterStore', () => {
  it('is what the engine asks for', () => {
    const adapters: EngineAdapters = create().store
    assert.deepEqual(adapters.list(), [])
  })

  it('lists an adapter after its load, never before', async () => {
    const { store, loader } = create()
    const registered = store.register({ name: 'a', path: '10' }, false)
    await turn()
    assert.equal(store.find('a'), null)
    loader.take().finish()
    const info = await registered
    assert.equal(store.find('a'), info.id)
    assert.equal(info.state, 'loaded')
    assert.deepEqual(store.list(), [info])
    store.checkIntegrity()
  })

  it('refuses a taken name unless told to replace', async () => {
    const { store, add } = create()
    await add('a')
    await assert.rejects(store.register({ name: 'a', path: '10' }, false), hasCode('ADAPTER_NAME_TAKEN'))
    assert.equal(store.list().length, 1)
  })

  it('serialises calls for one name and runs different names side by side', async () => {
    const { store, loader } = create()
    const first = store.register({ name: 'a', path: '10' }, false)
    const second = store.register({ name: 'a', path: '10' }, false)
    const other = store.register({ name: 'b', path: '10' }, false)
    await turn()
    assert.deepEqual(
      loader.calls.map(({ source }) => source.name),
      ['a', 'b'],
    )
    loader.calls[1]!.finish()
    assert.equal((await other).name, 'b')
    loader.calls[0]!.finish()
    await first
    await assert.rejects(second, hasCode('ADAPTER_NAME_TAKEN'))
  })

  it('a failed load leaves the list as it was, and the name free', async () => {
    const { store, loader, add } = create()
    const failed = store.register({ name: 'a', path: '10' }, false)
    await turn()
    loader.take().fail(new LorikeetError('ADAPTER_NOT_FOUND', { name: 'a', path: '/nowhere' }))
    await assert.rejects(failed, hasCode('ADAPTER_NOT_FOUND'))
    assert.deepEqual(store.list(), [])
    await add('a')
    const replacing = store.register({ name: 'a', path: '10' }, true)
    await turn()
    loader.take().fail(new LorikeetError('ADAPTER_REFUSED', { name: 'a', field: 'r', reason: 'no' }))
    await assert.rejects(replacing, hasCode('ADAPTER_REFUSED'))
    assert.equal(store.list().length, 1)
  })

  it('refuses what can never fit, and what the device cannot serve', async () => {
    const { store, loader } = create({ deviceBytes: 50, hostBytes: 200 })
    for (const [bytes, change, code] of [
      [51, {}, 'ADAPTER_TOO_LARGE'],
      [201, {}, 'ADAPTER_TOO_LARGE'],
      [10, { kind: 'UNSERVABLE' }, 'ADAPTER_REFUSED'],
    ] as const) {
      const registered = store.register({ name: 'a', path: String(bytes) }, false)
      await turn()
      loader.take().finish(change)
      await assert.rejects(registered, hasCode(code))
    }
    assert.deepEqual(store.list(), [])
  })

  it('goes from loaded to pinned to active, and counts pins', async () => {
    const { store, device, add } = create()
    const id = await add('a')
    const slot = store.tryAcquire(id)
    assert.notEqual(slot, null)
    assert.equal(store.tryAcquire(id), slot)
    assert.equal(store.info(id)?.state, 'pinned')
    store.release(id)
    assert.equal(store.info(id)?.state, 'pinned')
    store.release(id)
    assert.equal(store.info(id)?.state, 'active')
    assert.equal(device.resident.size, 1)
    assert.throws(() => store.release(id), hasCode('INTERNAL'))
  })

  it('evicts the least recently used unpinned adapter, and never a pinned one', async () => {
    const { store, device, add } = create({ deviceBytes: 20 })
    const [a, b, c] = [await add('a'), await add('b'), await add('c')]
    store.tryAcquire(a)
    store.tryAcquire(b)
    store.release(b)
    assert.notEqual(store.tryAcquire(c), null)
    assert.equal(store.info(b)?.state, 'loaded')
    assert.equal(store.tryAcquire(b), null, 'both slots are pinned')
    assert.equal(store.failure(b), null)
    store.release(c)
    store.release(a)
    store.tryAcquire(c)
    store.release(c)
    assert.notEqual(store.tryAcquire(b), null)
    assert.equal(store.info(a)?.state, 'loaded', 'a was used before c')
    assert.equal(store.counters.evictions, 2)
    assert.equal(store.counters.deviceBytes, device.usedBytes)
    store.checkIntegrity()
  })

  it('evicts nothing when that would not make enough room', async () => {
    const { store, add } = create({ deviceBytes: 30 })
    const [pinned, idle, large] = [await add('a', 15), await add('b', 10), await add('c', 20)]
    store.tryAcquire(pinned)
    store.tryAcquire(idle)
    store.release(idle)
    assert.equal(store.tryAcquire(large), null)
    assert.equal(store.info(idle)?.state, 'active')
  })

  it('keeps a replaced generation for its requests, and its place in the list for the name', async () => {
    const { store, device, add } = create()
    const old = await add('a')
    await add('b')
    store.addHolder(old)
    store.tryAcquire(old)
    const next = await add('a', 10, true)
    assert.notEqual(next, old)
    assert.equal(store.find('a'), next)
    assert.deepEqual(
      store.list().map(({ name }) => name),
      ['a', 'b'],
    )
    assert.ok(store.isKnown(old))
    assert.equal(store.compiled(old)?.kvDigest, 'kv of a')
    store.checkIntegrity()
    store.release(old)
    assert.ok(store.isKnown(old), 'a waiting request may still name it')
    store.dropHolder(old)
    assert.ok(!store.isKnown(old))
    assert.equal(device.resident.size, 0)
    store.checkIntegrity()
  })

  it('sends a request that a replacement overtook to the newest generation', async () => {
    const { store, add } = create()
    const first = await add('a')
    assert.equal(store.current(first), first)
    await add('a', 10, true)
    const third = await add('a', 10, true)
    assert.equal(store.current(first), third)
    store.unregister('a')
    assert.ok(!store.isKnown(store.current(first)))
  })

  it('keeps a request that came before the replacement on its generation', async () => {
    const { store, add } = create()
    const old = await add('a')
    store.addHolder(old)
    await add('a', 10, true)
    assert.equal(store.current(old), old)
  })

  it('frees an unregistered adapter at once when nobody uses it, else with its last request', async () => {
    const { store, device, add } = create()
    const [idle, busy] = [await add('idle'), await add('busy')]
    store.tryAcquire(idle)
    store.release(idle)
    store.addHolder(busy)
    store.unregister('idle')
    store.unregister('busy')
    assert.ok(!store.isKnown(idle))
    assert.equal(device.resident.size, 0)
    assert.notEqual(store.tryAcquire(busy), null)
    store.release(busy)
    store.dropHolder(busy)
    assert.ok(!store.isKnown(busy))
    assert.throws(() => store.unregister('busy'), hasCode('MODEL_NOT_FOUND'))
    assert.equal(store.hostBytes, 0)
  })

  it('reads again what the host budget pushed out, without blocking', async () => {
    let numChanges = 0
    const { store, loader, add } = create({ hostBytes: 20, onChange: () => numChanges++ })
    const [a, b, c] = [await add('a'), await add('b'), await add('c')]
    assert.equal(store.info(a)?.state, 'registered')
    assert.equal(store.info(b)?.state, 'loaded')
    assert.equal(store.compiled(a)?.kvDigest, 'kv of a', 'traits outlive the weights')
    assert.equal(store.tryAcquire(a), null)
    assert.equal(store.tryAcquire(a), null)
    assert.equal(loader.calls.length, 1, 'one load under way is enough')
    const before = numChanges
    loader.take().finish()
    await turn()
    assert.ok(numChanges > before, 'the engine is told')
    assert.notEqual(store.tryAcquire(a), null)
    assert.equal(store.info(c)?.state, 'loaded')
    assert.equal(store.info(b)?.state, 'registered')
    store.checkIntegrity()
  })

  it('drops host copies that nobody waits for first', async () => {
    const { store, add } = create({ hostBytes: 30 })
    const [waited, idle, active] = [await add('waited'), await add('idle'), await add('active')]
    store.addHolder(waited)
    store.tryAcquire(active)
    await add('new')
    assert.equal(store.info(waited)?.state, 'loaded')
    assert.equal(store.info(idle)?.state, 'registered')
    await add('newer')
    await add('newest')
    assert.equal(store.info(waited)?.state, 'loaded', 'an active adapter needs its copy less')
    store.checkIntegrity()
  })

  it('a failed reload is told to every waiting request, then tried afresh', async () => {
    const { store, loader, add } = create({ hostBytes: 10 })
    const a = await add('a')
    await add('b')
    store.addHolder(a)
    assert.equal(store.tryAcquire(a), null)
    loader.take().fail(new LorikeetError('ADAPTER_NOT_FOUND', { name: 'a', path: '/gone' }))
    await turn()
    assert.equal(store.failure(a)?.code, 'ADAPTER_NOT_FOUND')
    assert.equal(store.tryAcquire(a), null)
    assert.equal(loader.calls.length, 0, 'not before the waiting request was told')
    store.dropHolder(a)
    assert.equal(store.failure(a), null)
    store.addHolder(a)
    store.tryAcquire(a)
    loader.take().finish()
    await turn()
    assert.notEqual(store.tryAcquire(a), null)
  })

  it('refuses a reload of files that changed on disk', async () => {
    const { store, loader, add } = create({ hostBytes: 10 })
    const a = await add('a')
    await add('b')
    store.addHolder(a)
    store.tryAcquire(a)
    loader.take().finish({ digest: 'another' })
    await turn()
    assert.equal(store.failure(a)?.code, 'ADAPTER_REFUSED')
  })

  it('a device that fails to load an adapter fails its requests and nothing else', async () => {
    const { store, device, add } = create()
    const a = await add('a')
    device.failWith = new Error('driver said no')
    store.addHolder(a)
    assert.equal(store.tryAcquire(a), null)
    assert.match(store.failure(a)?.message ?? '', /driver said no/)
    store.checkIntegrity()
  })

  it('dispose frees the device and drops what arrives later', async () => {
    const { store, device, loader, add } = create()
    const a = await add('a')
    store.tryAcquire(a)
    const late = store.register({ name: 'b', path: '10' }, false)
    await turn()
    store.dispose()
    store.dispose()
    loader.take().finish()
    await assert.rejects(late, hasCode('DRAINING'))
    assert.equal(device.resident.size, 0)
    store.checkIntegrity()
  })

  it('copies to the device a share a call and gives the slot when all is there', async () => {
    const { store, device, add } = create()
    const id = await add('a', 10)
    assert.equal(store.tryAcquire(id, 4), null)
    assert.equal(store.isCopying(id), true)
    assert.equal(store.tryAcquire(id, 0), null)
    assert.equal(store.tryAcquire(id, 4), null)
    const slot = store.tryAcquire(id, 4)
    assert.ok(slot !== null)
    assert.equal(device.numBytesLeft.get(slot), 0)
    assert.equal(store.isCopying(id), false)
    store.checkIntegrity()
  })

  it('finishes a copy that is waited for before it gives the room to another', async () => {
    const { store, add } = create({ deviceBytes: 15 })
    const [a, b] = [await add('a', 10), await add('b', 10)]
    for (const id of [a, b]) store.addHolder(id)
    assert.equal(store.tryAcquire(a, 4), null)
    assert.equal(store.tryAcquire(b, 100), null)
    assert.equal(store.isCopying(a), true)
    assert.ok(store.tryAcquire(a, 100) !== null)
    store.release(a)
    assert.ok(store.tryAcquire(b, 100) !== null)
  })

  it('gives up a copy that nobody waits for', async () => {
    const { store, add } = create({ deviceBytes: 15 })
    const [a, b] = [await add('a', 10), await add('b', 10)]
    store.addHolder(a)
    assert.equal(store.tryAcquire(a, 4), null)
    store.dropHolder(a)
    assert.ok(store.tryAcquire(b, 100) !== null)
    assert.equal(store.isCopying(a), false)
    store.checkIntegrity()
  })

  for (const seed of [1, 2, 3, 4, 5]) {
    it(`holds its invariants under random operations (seed ${seed})`, () => runRandomOperations(seed))
  }
})

/** Requests come, wait, run and end; names are loaded, replaced and unloaded; loads end late, in any order, or fail. */
async function runRandomOperations(seed: number): Promise<void> {
  const random = createRandom(seed)
  const pick = <T>(items: readonly T[]): T | undefined => items[Math.floor(random() * items.length)]
  const { store, device, loader } = create({ deviceBytes: 60, hostBytes: 120 })
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  const requests: { id: AdapterId; isRunning: boolean }[] = []
  const outcomes: Promise<unknown>[] = []
  for (let step = 0; step < 2000; step++) {
    const dice = random()
    const name = pick(names)!
    if (dice < 0.08) {
      outcomes.push(store.register({ name, path: String(5 + Math.floor(random() * 40)) }, random() < 0.5).catch(() => {}))
    } else if (dice < 0.1) {
      if (store.find(name) !== null) store.unregister(name)
    } else if (dice < 0.3) {
      const id = store.find(name)
      if (id !== null) {
        store.addHolder(id)
        requests.push({ id, isRunning: false })
      }
    } else if (dice < 0.5) {
      const request = pick(requests.filter(({ isRunning }) => !isRunning))
      if (request !== undefined) request.isRunning = store.tryAcquire(request.id, pick([0, 5, 20, 100])!) !== null
    } else if (dice < 0.74) {
      const request = pick(requests)
      if (request !== undefined) {
        if (request.isRunning) store.release(request.id)
        store.dropHolder(request.id)
        requests.splice(requests.indexOf(request), 1)
      }
    } else {
      const call = pick(loader.calls)
      if (call !== undefined) {
        loader.calls.splice(loader.calls.indexOf(call), 1)
        if (random() < 0.1) call.fail(new LorikeetError('INTERNAL', { detail: 'test' }))
        else call.finish()
      }
      await turn()
    }
    store.checkIntegrity()
    assert.equal(store.counters.deviceBytes, device.usedBytes)
    for (const { id, isRunning } of requests) {
      assert.ok(store.isKnown(id), 'a request keeps its generation')
      if (isRunning) assert.equal(store.info(id)?.state, 'pinned')
    }
  }
  loader.isImmediate = true
  for (const { id, isRunning } of requests.splice(0)) {
    if (isRunning) store.release(id)
    store.dropHolder(id)
  }
  while (loader.calls.length > 0) {
    loader.take().finish()
    await turn()
  }
  await Promise.all(outcomes)
  assert.ok(store.counters.loads > 30 && store.counters.evictions > 10, 'the run reached the interesting states')
  for (const { name } of store.list()) store.unregister(name)
  store.checkIntegrity()
  assert.equal(device.resident.size, 0)
  assert.equal(store.hostBytes, 0)
  assert.equal(store.isKnown(adapterId(1)), false)
}
