import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { compileAdapter } from '../../src/adapter/compile.ts'
import { LoaderClient, type LoaderWorker } from '../../src/adapter/loader-client.ts'
import type { LoadReply, LoadRequest } from '../../src/adapter/loader-messages.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { goldenModel, writeChangedAdapter } from '../support/adapter-dir.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { goldenModelDir } from '../support/golden.ts'
import { f32 } from '../support/safetensors-file.ts'

const hasCode = (code: string) => (error: unknown) => error instanceof LorikeetError && error.code === code

describe('loader thread', () => {
  const warnings: string[] = []
  const client = new LoaderClient({
    start: () =>
      new Worker(join(import.meta.dirname, '../support/loader-worker.mjs'), {
        workerData: { modelPath: goldenModelDir('llama') },
      }),
    onWarning: (name, warning) => warnings.push(`${name}: ${warning}`),
  })
  after(() => client.dispose())

  it('sends adapters whole across threads, refusals as coded errors, warnings to the log', async () => {
    const dir = goldenAdapterDir('llama', 'lora_dora')
    const key = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight'
    const untrained = writeChangedAdapter('llama/lora_all', {
      tensors: (all) => ({ ...all, [key]: f32([64, 4], new Array<number>(256).fill(0)) }),
    })
    const [adapter, refused, missing] = await Promise.all([
      client.load({ name: 'good', path: dir }, adapterId(7)),
      client
        .load({ name: 'bad', path: writeChangedAdapter('llama/lora_all', { config: { r: 8 } }) }, adapterId(8))
        .catch((e: unknown) => e),
      client.load({ name: 'gone', path: '/does/not/exist' }, adapterId(9)).catch((e: unknown) => e),
      client.load({ name: 'zero', path: untrained }, adapterId(10)),
    ])
    assert.deepEqual(adapter, compileAdapter(dir, goldenModel('llama'), adapterId(7), 'good').adapter)
    assert.ok(hasCode('ADAPTER_REFUSED')(refused))
    assert.equal((refused as LorikeetError).field, 'r')
    assert.ok(hasCode('ADAPTER_NOT_FOUND')(missing))
    assert.equal(warnings.length, 1)
    assert.match(warnings[0]!, /^zero: .*all zero/)
  })

  it('shares an A of fused modules after the transfer too', async () => {
    const phi3 = new LoaderClient({
      start: () =>
        new Worker(join(import.meta.dirname, '../support/loader-worker.mjs'), {
          workerData: { modelPath: goldenModelDir('phi3') },
        }),
    })
    const { sites } = await phi3.load({ name: 'a', path: goldenAdapterDir('phi3', 'lora_alllinear_rank1') }, adapterId(1))
    const [q, k] = [sites.get('layers.0.q')?.[0], sites.get('layers.0.k')?.[0]]
    assert.ok(q?.kind === 'low-rank' && k?.kind === 'low-rank')
    assert.equal(q.a.buffer, k.a.buffer)
    assert.equal(q.b.buffer, k.b.buffer)
    await phi3.dispose()
  })

  it('a model that cannot be opened fails the load, not the process', async () => {
    const dir = goldenModelDir('nowhere')
    const broken = new LoaderClient({
      start: () => new Worker(join(import.meta.dirname, '../support/loader-worker.mjs'), { workerData: { modelPath: dir } }),
    })
    await assert.rejects(broken.load({ name: 'a', path: dir }, adapterId(1)), hasCode('MODEL_INVALID'))
    await broken.dispose()
  })
})

/** A worker that answers when told to, or dies. */
class FakeWorker extends EventEmitter implements LoaderWorker {
  readonly requests: LoadRequest[] = []

  postMessage(message: unknown): void {
    this.requests.push(message as LoadRequest)
  }

  answer(request: LoadRequest): void {
    const id = adapterId(request.adapterId)
    const adapter = compileAdapter(goldenAdapterDir('llama', 'lora_qv'), goldenModel('llama'), id, request.name).adapter
    this.emit('message', { type: 'loaded', callId: request.callId, adapter, warnings: [] } satisfies LoadReply)
  }

  die(): void {
    this.emit('error', new Error('out of memory'))
    this.emit('exit', 1)
  }

  async terminate(): Promise<number> {
    this.emit('exit', 1)
    return 1
  }

  ref(): void {}

  unref(): void {}
}

describe('LoaderClient', () => {
  const create = () => {
    const workers: FakeWorker[] = []
    const start = () => {
      const worker = new FakeWorker()
      workers.push(worker)
      return worker
    }
    return { workers, client: new LoaderClient({ start }) }
  }
  const load = (client: LoaderClient, name: string) => client.load({ name, path: '/' }, adapterId(1))

  it('starts no thread before the first load', async () => {
    const { workers, client } = create()
    assert.equal(workers.length, 0)
    const loading = load(client, 'a')
    workers[0]!.answer(workers[0]!.requests[0]!)
    assert.equal((await loading).name, 'a')
    await client.dispose()
  })

  it('a thread that dies fails the load it worked on; the others go to a new one', async () => {
    const { workers, client } = create()
    const [killer, other] = [load(client, 'killer'), load(client, 'other')]
    workers[0]!.die()
    await assert.rejects(killer, /ended while loading adapter 'killer' \(out of memory\)/)
    assert.deepEqual(
      workers[1]!.requests.map(({ name }) => name),
      ['other'],
    )
    workers[1]!.answer(workers[1]!.requests[0]!)
    assert.equal((await other).name, 'other')
    workers[1]!.die()
    const later = load(client, 'later')
    workers[2]!.answer(workers[2]!.requests[0]!)
    assert.equal((await later).name, 'later')
    await client.dispose()
  })

  it('dispose rejects what is under way and what comes later', async () => {
    const { client, workers } = create()
    const loading = load(client, 'a')
    const rejected = assert.rejects(loading, hasCode('DRAINING'))
    await client.dispose()
    await client.dispose()
    await rejected
    await assert.rejects(load(client, 'b'), hasCode('DRAINING'))
    assert.equal(workers.length, 1)
  })
})
