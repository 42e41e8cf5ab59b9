// What every backend must do, as tests that take the backend as a parameter.

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { CompiledAdapter, Site, VirtualTokens } from '../../src/adapter/primitive.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { adapterSlot } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { openModel } from '../../src/model/open-model.ts'
import { primitiveTests } from './contract-primitives.ts'
import { goldenModelDir, maxAbsDiff } from './golden.ts'
import { argmax, type Generated, PlanDriver } from './plan-driver.ts'
import {
  adapterOf,
  createRandom,
  randomEverything,
  randomLora,
  randomLowRank,
  randomPrefix,
  randomSoftPrompt,
} from './random-adapter.ts'

export interface BackendOptions {
  readonly model: ModelSource
  readonly blockSize: number
  readonly numBlocks: number
  /** Budget for adapters. */
  readonly adapterBytes: number
}

export interface ContractSubject {
  readonly name: string
  readonly create: (options: BackendOptions) => Backend | Promise<Backend>
  /** False: a fake whose logits say nothing about weights. Default true. */
  readonly computes?: boolean
  /** Golden models it refuses with MODEL_UNSUPPORTED. Default: none. */
  readonly refusedModels?: readonly string[]
  /** True: golden adapters it refuses with ADAPTER_REFUSED are skipped, with the reason. Default false. */
  readonly mayRefuseAdapters?: boolean
  /**
   * For half precision: largest ‖logits - expected‖ / ‖expected‖ of a row. Sequences are then fed the expected tokens, and greedy
   * choices compared where the best two expected logits are further apart than that error. Default: float32 tolerances.
   */
  readonly relativeError?: number
}

/** Largest difference that the order of float32 sums may make between two batches. */
const BATCH_TOLERANCE = 1e-4

const BLOCK_SIZE = 4
const NUM_BLOCKS = 96
const ADAPTER_BYTES = 64 << 20
const NUM_TOKENS = 6

export function runContractSuite(subject: ContractSubject): void {
  for (const modelName of ['llama', 'gemma2', 'gpt2']) {
    describe(`${subject.name} on ${modelName}`, () => contractTests(subject, modelName))
    describe(`${subject.name} on ${modelName}: primitives`, () => primitiveContract(subject, modelName))
  }
  describe(`${subject.name}: adapter memory`, () => adapterMemoryTests(subject))
}

/** Half precision has tolerances of its own, and tests with them. */
function primitiveContract(subject: ContractSubject, modelName: string): void {
  if (subject.relativeError !== undefined) return
  const model = openModel(goldenModelDir(modelName))
  const size = { blockSize: BLOCK_SIZE, numBlocks: NUM_BLOCKS, adapterBytes: ADAPTER_BYTES }
  const { computes = true, mayRefuseAdapters: mayRefuse = false } = subject
  primitiveTests({ create: () => subject.create({ model, ...size }), tolerance: BATCH_TOLERANCE, computes, mayRefuse }, model)
}

function contractTests(subject: ContractSubject, modelName: string): void {
  const model = openModel(goldenModelDir(modelName))
  const computes = subject.computes ?? true
  let backend: Backend
  before(async () => {
    backend = await subject.create({ model, blockSize: BLOCK_SIZE, numBlocks: NUM_BLOCKS, adapterBytes: ADAPTER_BYTES })
  })
  after(() => backend.dispose())

  test('a mixed batch gives every request what it gets alone', async () => {
    const requests = mixedRequests(backend, model)
    const together = new PlanDriver(backend)
    const mixed = await together.generate(
      requests.map(({ prompt, ...options }) => together.add(prompt, options)),
      NUM_TOKENS,
    )
    for (const [i, request] of requests.entries()) {
      const [expected] = await generateFresh(backend, [request])
      assertSame(mixed[i]!, expected!, `request ${i}`)
    }
    if (computes) assertAllDiffer(mixed.filter((_, i) => requests[i]!.prompt === requests[0]!.prompt))
    for (const slot of new Set(requests.map((request) => request.adapterSlot)))
      if (slot >= 0) backend.unloadAdapter(adapterSlot(slot))
  })

  test('a prompt in chunks equals the whole prompt', async () => {
    const lora = randomLora(model, 7, 8)
    const slot = load(backend, lora)
    const whole = await generateFresh(backend, [{ prompt: promptOf(1, 19), adapterSlot: slot }])
    for (const chunkSize of [1, 3, 7]) {
      const driver = new PlanDriver(backend)
      const sequence = driver.add(promptOf(1, 19), { adapterSlot: slot })
      const [chunked] = await driver.generate([sequence], NUM_TOKENS, { chunkSize })
      assertSame(chunked!, whole[0]!, `chunks of ${chunkSize}`)
    }
    backend.unloadAdapter(slot)
  })

  test('prompt chunks and decode steps of others share a step', async () => {
    const prompts = [promptOf(2, 5), promptOf(3, 21), promptOf(4, 13)]
    const alone = await generateEachAlone(backend, prompts)
    const driver = new PlanDriver(backend)
    const mixed = await driver.generate(
      prompts.map((prompt) => driver.add(prompt)),
      NUM_TOKENS,
      { chunkSize: 4 },
    )
    for (const [i, expected] of alone.entries()) assertSame(mixed[i]!, expected, `prompt ${i}`)
  })

  test('shared prefix blocks equal recomputed ones', async () => {
    const slot = load(backend, randomLora(model, 8, 4))
    const prompt = promptOf(5, 18)
    const driver = new PlanDriver(backend)
    const first = driver.add(prompt, { adapterSlot: slot })
    const [expected] = await driver.generate([first], NUM_TOKENS)
    const second = driver.add(prompt, { adapterSlot: slot, prefix: { of: first, numTokens: 16 } })
    const other = driver.add([...prompt.slice(0, 12), 9, 8, 7], { adapterSlot: slot, prefix: { of: first, numTokens: 12 } })
    const shared = await driver.generate([second, other], NUM_TOKENS)
    assertSame(shared[0]!, expected!, 'the same prompt')
    const recomputed = await generateFresh(backend, [{ prompt: [...prompt.slice(0, 12), 9, 8, 7], adapterSlot: slot }])
    assertSame(shared[1]!, recomputed[0]!, 'a prompt that branches off')
    backend.unloadAdapter(slot)
  })

  test('the order of blocks in the pool is irrelevant', async () => {
    const prompts = [promptOf(6, 17), promptOf(7, 9)]
    const expected = await generateEachAlone(backend, prompts)
    const random = createRandom(99)
    const shuffled = Array.from({ length: NUM_BLOCKS }, (_, i) => ({ i, key: random() }))
      .sort((a, b) => a.key - b.key)
      .map(({ i }) => i)
    const driver = new PlanDriver(backend, shuffled)
    const found = await driver.generate(
      prompts.map((prompt) => driver.add(prompt)),
      NUM_TOKENS,
    )
    for (const [i, want] of expected.entries()) assertSame(found[i]!, want, `prompt ${i}`)
  })

  test('a preempted request continues as if it had not been', async () => {
    const prompt = promptOf(8, 11)
    const [whole] = await generateFresh(backend, [{ prompt }])
    const driver = new PlanDriver(backend)
    const victim = driver.add(prompt)
    const [start] = await driver.generate([victim], 3)
    driver.release(victim)
    const other = driver.add(promptOf(9, 30))
    await driver.step([{ sequence: other }])
    const resumed = driver.add(victim.tokens)
    const [rest] = await driver.generate([resumed], NUM_TOKENS - 3)
    assert.deepEqual([...start!.tokens, ...rest!.tokens], whole!.tokens)
    assertSame(rest!, { tokens: whole!.tokens.slice(3), logits: whole!.logits.slice(3) }, 'after recompute')
  })

  test('an adapter that starts inside a sequence leaves what comes before it alone', async () => {
    const slot = load(backend, randomLora(model, 10, 8))
    const prompt = promptOf(10, 14)
    const activationStart = 9
    const scored = async (options: { adapterSlot?: number; activationStart?: number }, sizes: readonly number[]) => {
      const driver = new PlanDriver(backend)
      const sequence = driver.add(prompt, options)
      const rows: Float32Array[] = []
      for (const numTokens of sizes) rows.push(...(await driver.step([{ sequence, numTokens, allLogits: true }]))[0]!)
      return rows
    }
    const base = await scored({}, [14])
    const activated = await scored({ adapterSlot: slot, activationStart }, [14])
    const chunked = await scored({ adapterSlot: slot, activationStart }, [5, 6, 3])
    for (let i = 0; i < prompt.length; i++) {
      assertClose(chunked[i]!, activated[i]!, `position ${i} in chunks`)
      if (i < activationStart) assertClose(activated[i]!, base[i]!, `position ${i} before the start`)
      else if (computes) assert.ok(maxAbsDiff(activated[i]!, base[i]!) > 1e-3, `position ${i} after the start`)
    }
    backend.unloadAdapter(slot)
  })

  for (const create of [randomPrefix, randomSoftPrompt]) {
    // Blocks hold 4 tokens: virtual tokens that end inside a block, at its end, and inside the first.
    for (const numTokens of [2, 8, 11]) {
      const adapter = create(model, 40 + numTokens, numTokens)
      const { virtualTokens } = adapter

      test(`${adapter.name}: chunks, shared blocks and recompute change nothing`, async () => {
        const adapterSlot = load(backend, adapter)
        const options = { adapterSlot, virtualTokens }
        const prompt = promptOf(50, 9)
        const [whole] = await generateFresh(backend, [{ prompt, ...options }])
        if (computes) assertAllDiffer([whole!, (await generateFresh(backend, [{ prompt }]))[0]!])

        const driver = new PlanDriver(backend)
        const chunked = driver.add(prompt, options)
        assertSame((await driver.generate([chunked], NUM_TOKENS, { chunkSize: 3 }))[0]!, whole!, 'in chunks')

        const numShared = Math.floor(numTokens / BLOCK_SIZE) * BLOCK_SIZE
        const follower = driver.add(prompt, { ...options, prefix: { of: chunked, numTokens: numShared } })
        const base = driver.add(prompt)
        const [shared] = await driver.generate([follower, base], NUM_TOKENS)
        assertSame(shared!, whole!, 'behind shared blocks')

        driver.release(follower, numShared)
        await driver.step([{ sequence: driver.add(promptOf(51, 40)) }])
        const resumed = driver.add([...prompt, ...whole!.tokens.slice(0, 2)], options)
        const [rest] = await driver.generate([resumed], NUM_TOKENS - 2)
        assertSame(rest!, { tokens: whole!.tokens.slice(2), logits: whole!.logits.slice(2) }, 'after recompute')
        backend.unloadAdapter(adapterSlot)
      })
    }
  }

  test('a block that held values beyond numbers is clean for the prefix that gets it next', async () => {
    const prefix = randomPrefix(model, 60, 6)
    const poison = randomPrefix(model, 61, 8)
    assert.ok(poison.virtualTokens?.kind === 'prefix')
    for (const values of [...poison.virtualTokens.keys, ...poison.virtualTokens.values]) values.fill(Number.POSITIVE_INFINITY)
    const request = { prompt: promptOf(60, 1), adapterSlot: load(backend, prefix), virtualTokens: prefix.virtualTokens }
    const [expected] = await generateFresh(backend, [request])
    const poisonSlot = load(backend, poison)
    const driver = new PlanDriver(backend)
    await driver.step([{ sequence: driver.add([5], { adapterSlot: poisonSlot, virtualTokens: poison.virtualTokens }) }])
    const [found] = await generateFresh(backend, [request])
    assertSame(found!, expected!, 'after the poison')
    backend.unloadAdapter(poisonSlot)
    backend.unloadAdapter(request.adapterSlot)
  })

  test('logits of any token of a chunk may be asked for', async () => {
    const prompt = promptOf(11, 10)
    const driver = new PlanDriver(backend)
    const [all] = await driver.step([{ sequence: driver.add(prompt), allLogits: true }])
    const oneByOne = driver.add(prompt)
    for (let i = 0; i < prompt.length; i++) {
      const [rows] = await driver.step([{ sequence: oneByOne, numTokens: 1 }])
      assertClose(all![i]!, rows![0]!, `position ${i}`)
    }
  })

  test('a step that needs no logits gives the same tokens', async () => {
    const prompts = [promptOf(12, 6), promptOf(13, 12)]
    const withLogits = new PlanDriver(backend)
    const rows = await withLogits.step(prompts.map((prompt) => ({ sequence: withLogits.add(prompt) })))
    const withoutLogits = new PlanDriver(backend)
    const tokens = await withoutLogits.stepTokens(prompts.map((prompt) => ({ sequence: withoutLogits.add(prompt) })))
    assert.deepEqual(
      tokens,
      rows.map(([logits]) => argmax(logits!)),
    )
  })
}

function adapterMemoryTests(subject: ContractSubject): void {
  const model = openModel(goldenModelDir('llama'))
  const createWith = (adapterBytes: number) =>
    Promise.resolve(subject.create({ model, blockSize: BLOCK_SIZE, numBlocks: NUM_BLOCKS, adapterBytes }))

  test('the budget is a value, and unloading makes room', async () => {
    const [a, b] = [randomLora(model, 20, 8), randomLora(model, 21, 8)]
    const measure = await createWith(ADAPTER_BYTES)
    const numBytes = measure.adapterBytes(a)
    await measure.dispose()
    assert.ok(numBytes > 0)
    const backend = await createWith(numBytes + 1)
    const slot = load(backend, a)
    assert.equal(backend.loadAdapter(b), null)
    backend.unloadAdapter(slot)
    assert.notEqual(backend.loadAdapter(b), null)
    await backend.dispose()
  })

  test('a slot that is used again holds nothing of its last adapter', async () => {
    const [big, small] = [randomEverything(model, 22), randomLora(model, 23, 2, ['q'])]
    const backend = await createWith(ADAPTER_BYTES)
    const request = { prompt: promptOf(20, 9) }
    const [expected] = await generateFresh(backend, [{ ...request, adapterSlot: load(backend, small) }])
    await backend.dispose()
    const reused = await createWith(ADAPTER_BYTES)
    const bigSlot = load(reused, big)
    await generateFresh(reused, [{ ...request, adapterSlot: bigSlot }])
    reused.unloadAdapter(bigSlot)
    const [found] = await generateFresh(reused, [{ ...request, adapterSlot: load(reused, small) }])
    assertSame(found!, expected!, 'after reuse')
    await reused.dispose()
  })

  if (subject.computes === false) return
  test('an adapter that does not fit the model is refused by name', async () => {
    const backend = await createWith(ADAPTER_BYTES)
    const lowRank = randomLowRank(createRandom(1), { numOut: 64, numIn: 60 }, 2)
    const rows = new Float32Array(3 * 60)
    const prompt = adapterOf('misfit', new Map(), { kind: 'soft-prompt', numTokens: 3, rows, layerRows: null })
    assert.throws(() => backend.adapterBytes(prompt), /soft-prompt/)
    for (const site of ['layers.0.q', 'layers.9.q'] as const) {
      const adapter = adapterOf('misfit', new Map<Site, [typeof lowRank]>([[site, [lowRank]]]))
      assert.throws(
        () => backend.adapterBytes(adapter),
        (error) => error instanceof LorikeetError && error.code === 'ADAPTER_REFUSED' && error.message.includes(site),
      )
    }
    await backend.dispose()
  })
}

interface Request {
  readonly prompt: readonly number[]
  readonly adapterSlot?: number
  readonly virtualTokens?: VirtualTokens | null
}

/**
 * Base rows, ranks 2 to 16, a partial adapter, one with every primitive, a prefix and a soft prompt; several requests share an
 * adapter or a prompt.
 */
function mixedRequests(backend: Backend, model: ModelSource): readonly (Request & { readonly adapterSlot: number })[] {
  const shared = promptOf(0, 12)
  const adapters = [
    randomLora(model, 1, 2),
    randomLora(model, 2, 16),
    randomLora(model, 3, 5, ['v', 'down']),
    randomEverything(model, 4),
    randomPrefix(model, 5, 6),
    randomSoftPrompt(model, 6, 5),
  ]
  const slots = adapters.map((adapter) => load(backend, adapter))
  return [
    { prompt: shared, adapterSlot: slots[3]! },
    { prompt: shared, adapterSlot: -1 },
    { prompt: shared, adapterSlot: slots[0]! },
    { prompt: promptOf(30, 3), adapterSlot: slots[0]! },
    { prompt: shared, adapterSlot: slots[1]! },
    { prompt: promptOf(31, 1), adapterSlot: -1 },
    { prompt: promptOf(32, 20), adapterSlot: slots[3]! },
    { prompt: shared, adapterSlot: slots[2]! },
    { prompt: shared, adapterSlot: slots[4]!, virtualTokens: adapters[4]!.virtualTokens },
    { prompt: promptOf(33, 1), adapterSlot: slots[4]!, virtualTokens: adapters[4]!.virtualTokens },
    { prompt: shared, adapterSlot: slots[5]!, virtualTokens: adapters[5]!.virtualTokens },
  ]
}

function load(backend: Backend, adapter: CompiledAdapter) {
  const slot = backend.loadAdapter(adapter)
  if (slot === null) throw new Error(`${adapter.name} must fit`)
  return slot
}

/** Seeded token ids below the golden models' vocabulary of 320. */
function promptOf(seed: number, length: number): readonly number[] {
  const random = createRandom(1000 + seed)
  return Array.from({ length }, () => 3 + Math.floor(random() * 317))
}

async function generateFresh(backend: Backend, requests: readonly Request[]): Promise<readonly Generated[]> {
  const driver = new PlanDriver(backend)
  const sequences = requests.map(({ prompt, ...options }) => driver.add(prompt, options))
  return driver.generate(sequences, NUM_TOKENS)
}

async function generateEachAlone(backend: Backend, prompts: readonly (readonly number[])[]): Promise<readonly Generated[]> {
  const generated: Generated[] = []
  for (const prompt of prompts) generated.push(...(await generateFresh(backend, [{ prompt }])))
  return generated
}

function assertSame(found: Generated, expected: Generated, what: string): void {
  assert.deepEqual(found.tokens, expected.tokens, what)
  found.logits.forEach((logits, i) => {
    assertClose(logits, expected.logits[i]!, `${what}, token ${i}`)
  })
}

function assertClose(found: Float32Array, expected: Float32Array, what: string): void {
  const difference = maxAbsDiff(found, expected)
  assert.ok(difference <= BATCH_TOLERANCE, `${what}: logits differ by ${difference}`)
}

/** An adapter that changes nothing would pass every comparison with itself. */
function assertAllDiffer(generated: readonly Generated[]): void {
  for (const [i, a] of generated.entries()) {
    for (const b of generated.slice(i + 1)) assert.ok(maxAbsDiff(a.logits[0]!, b.logits[0]!) > 1e-2, 'adapters change logits')
  }
}
