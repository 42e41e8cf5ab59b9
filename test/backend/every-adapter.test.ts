// Every fixture of one model in one engine: requests of all kinds arrive at random, share steps, are chunked and preempted, and their
// adapters take turns on a device too small for all. Each must give the tokens that HF PEFT gave for it alone; AdapterHub's, whose files
// hold one token a prompt, those that the backend gives for it alone.

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { AdapterStore } from '../../src/adapter/adapter-store.ts'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { CompiledAdapter } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { adapterId, requestId } from '../../src/core/ids.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { EngineCommand, EngineEvent } from '../../src/engine/messages.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { GREEDY } from '../support/engine-harness.ts'
import { type GoldenCase, goldenModelDir, readGoldenCases } from '../support/golden.ts'
import { HUB_GOLDENS, hubGoldenDir } from '../support/hub-golden-suite.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { createRandom } from '../support/random-adapter.ts'

/** The goldens were generated with a minimum length, which keeps end-of-sequence from being sampled. */
const EOS_TOKEN_ID = 2

/** A few prompts at once, in pieces. */
const BATCHED_TOKENS = 96

/** Sequences of up to 40 positions: fewer fit than want to run. */
const CACHE = { blockSize: 4, kvCache: { numBlocks: 110 } }

/** All of them together take some 5 MiB. */
const ADAPTER_BYTES = 1 << 20

const MAX_STEPS = 20_000

/** Of the sixteen in the goldens: enough to meet every neighbour. */
const NUM_TOKENS = 8

interface Job {
  readonly id: string
  readonly adapter: string
  readonly golden: GoldenCase
}

const BACKENDS: readonly (readonly [name: string, create: (model: ModelSource) => Backend | Promise<Backend>])[] = [
  ['reference', (model) => createReferenceBackend({ model, ...CACHE, adapterBytes: ADAPTER_BYTES })],
  ['onnx', (model) => createOnnxBackend({ model, ...CACHE, adapterBytes: ADAPTER_BYTES, numThreads: 1 })],
]

for (const [name, create] of BACKENDS) {
  test(`${name}: one server holds every adapter of llama, and each answers as alone`, async () => {
    const model = openModel(goldenModelDir('llama'))
    const backend = await create(model)
    try {
      await run(backend, model)
    } finally {
      await backend.dispose()
    }
  })
}

interface Adapter {
  readonly name: string
  readonly dir: string
  readonly cases: readonly GoldenCase[]
}

/** Those that the backend serves. */
function peftAdapters(backend: Backend, model: ModelSource): readonly Adapter[] {
  const all = readdirSync(goldenAdapterDir('llama')).map((name) => {
    const dir = goldenAdapterDir('llama', name)
    return { name, dir, cases: readGoldenCases(dir) }
  })
  return all.filter(({ name, dir }, i) => isServed(backend, compileAdapter(dir, model, adapterId(i + 1), name).adapter))
}

/** Those that the backend serves, with what they say alone. */
async function hubAdapters(backend: Backend, model: ModelSource): Promise<readonly Adapter[]> {
  const adapters: Adapter[] = []
  for (const [i, name] of HUB_GOLDENS.entries()) {
    const dir = hubGoldenDir(name)
    const { adapter } = compileAdapter(dir, model, adapterId(i + 1), name)
    if (!isServed(backend, adapter)) continue
    const adapterSlot = backend.loadAdapter(adapter)
    assert.ok(adapterSlot !== null, 'one adapter fits alone')
    const prompts = readGoldenCases(dir).map(({ prompt }) => prompt)
    const driver = new PlanDriver(backend)
    const sequences = prompts.map((prompt) => driver.add(prompt, { adapterSlot, virtualTokens: adapter.virtualTokens }))
    const alone = await driver.generate(sequences, NUM_TOKENS, { banned: [EOS_TOKEN_ID] })
    backend.unloadAdapter(adapterSlot)
    const cases = alone.map(({ tokens }, k) => ({ prompt: prompts[k]!, tokens }))
    adapters.push({ name: `adapterhub ${name}`, dir, cases })
  }
  return adapters
}

function isServed(backend: Backend, adapter: CompiledAdapter): boolean {
  try {
    return backend.adapterBytes(adapter) > 0
  } catch (error) {
    assert.ok(error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED', String(error))
    return false
  }
}

async function run(backend: Backend, model: ModelSource): Promise<void> {
  const all = [...peftAdapters(backend, model), ...(await hubAdapters(backend, model))]
  assert.ok(all.length >= 100, `${all.length} adapters`)
  const jobs = shuffled(
    all.flatMap(({ name, cases }) => cases.map((golden, i): Job => ({ id: `${name}/${i}`, adapter: name, golden }))),
  )
  const tokensOf = new Map<string, number[]>(jobs.map(({ id }) => [id, []]))
  const commands: EngineCommand[] = []
  let numPreemptions = 0
  const hear = (event: EngineEvent): void => {
    if (event.type !== 'step') return
    numPreemptions = event.stats.numPreemptions
    for (const { requestId: id, tokenIds, finish } of event.outputs) {
      tokensOf.get(id)?.push(...tokenIds)
      assert.equal(finish?.error ?? null, null, id)
    }
  }
  const adapters = openStore(backend, model)
  for (const { name, dir } of all) await adapters.register({ name, path: dir }, false)
  const engine = openEngine(backend, adapters, () => commands.shift() ?? null, hear)
  const random = createRandom(7)
  let numSent = 0
  for (let step = 0; step < MAX_STEPS && (numSent < jobs.length || !engine.isIdle || step === 0); step++) {
    for (let arriving = Math.floor(random() * 8); arriving > 0 && numSent < jobs.length; arriving--) {
      commands.push(request(jobs[numSent++]!, adapters))
    }
    await engine.step()
    engine.checkIntegrity()
    // A full queue of copies to the device goes on without a step.
    await new Promise((resolve) => setImmediate(resolve))
  }
  for (const { id, golden } of jobs) assert.deepEqual(tokensOf.get(id), golden.tokens.slice(0, NUM_TOKENS), id)
  assert.ok(numPreemptions > 0, 'the cache is too large to preempt')
  assert.ok(adapters.counters.evictions > 0, 'the device is large enough for all')
  adapters.dispose()
}

function openStore(backend: Backend, model: ModelSource): AdapterStore {
  let nowMs = 0
  return new AdapterStore({
    device: backend,
    loader: { load: async ({ name, path }, id) => compileAdapter(path, model, id, name).adapter },
    hostBytes: 1 << 26,
    clock: () => nowMs++,
  })
}

function openEngine(
  backend: Backend,
  adapters: AdapterStore,
  receive: () => EngineCommand | null,
  send: (event: EngineEvent) => void,
): Engine {
  let nowMs = 0
  return new Engine({
    backend,
    adapters,
    maxNumSeqs: 48,
    maxNumBatchedTokens: BATCHED_TOKENS,
    maxModelLen: 64,
    enablePrefixCaching: true,
    receive,
    send,
    clock: () => nowMs++,
    drawSeed: () => 1,
  })
}

function request({ id, adapter, golden }: Job, adapters: AdapterStore): EngineCommand {
  const sampling = { ...GREEDY, maxTokens: NUM_TOKENS, minTokens: NUM_TOKENS, eosTokenIds: [EOS_TOKEN_ID] }
  const named = { requestId: requestId(id), adapterId: adapters.find(adapter), priority: 0, cacheSalt: '', arrivedAtMs: 0 }
  return { type: 'add-request', request: { ...named, promptTokenIds: Int32Array.from(golden.prompt), sampling } }
}

/** Fisher and Yates, with a seed of its own: the same mix every time. */
function shuffled<T>(items: readonly T[]): readonly T[] {
  const random = createRandom(11)
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const other = Math.floor(random() * (i + 1))
    const kept = out[i]!
    out[i] = out[other]!
    out[other] = kept
  }
  return out
}
