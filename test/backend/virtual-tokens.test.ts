// Golden prefixes and soft prompts through the whole engine on backends that compute: shared, in chunks, preempted, beside others.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AdapterStore } from '../../src/adapter/adapter-store.ts'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { requestId } from '../../src/core/ids.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { EngineCommand, EngineEvent } from '../../src/engine/messages.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { goldenModel } from '../support/adapter-dir.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { GREEDY } from '../support/engine-harness.ts'
import { type GoldenCase, goldenModelDir, readGoldenCases } from '../support/golden.ts'

const ADAPTERS: Readonly<Record<string, readonly string[]>> = {
  llama: ['prefix_tuning', 'prefix_tuning_proj', 'prompt_tuning', 'p_tuning_lstm', 'multitask_prompt', 'lora_all'],
  // A window of 8 positions: the prefix of 7 leaves it while the prompt is computed.
  mistral: ['prefix_tuning', 'lora_all'],
  gpt2: ['prefix_gpt2'],
}

const BLOCK_SIZE = 4
const NUM_TOKENS = 16

/** Several times what the slowest of the setups takes. */
const MAX_STEPS = 3000

interface Setup {
  readonly numBlocks: number
  readonly maxNumBatchedTokens: number
  readonly isPreempting: boolean
}

const SETUPS: readonly Setup[] = [
  { numBlocks: 400, maxNumBatchedTokens: 256, isPreempting: false },
  { numBlocks: 36, maxNumBatchedTokens: 9, isPreempting: true },
]

interface Job {
  readonly id: string
  readonly adapter: string | null
  readonly golden: GoldenCase
}

const BACKENDS: readonly (readonly [name: string, create: (model: ModelSource, numBlocks: number) => Promise<Backend>])[] = [
  [
    'reference',
    async (model, numBlocks) =>
      createReferenceBackend({ model, blockSize: BLOCK_SIZE, kvCache: { numBlocks }, adapterBytes: 1 << 24 }),
  ],
  [
    'onnx',
    (model, numBlocks) =>
      createOnnxBackend({ model, blockSize: BLOCK_SIZE, kvCache: { numBlocks }, adapterBytes: 1 << 24, numThreads: 1 }),
  ],
]

for (const [backendName, create] of BACKENDS) {
  for (const [architecture, names] of Object.entries(ADAPTERS)) {
    for (const setup of SETUPS) {
      const how = setup.isPreempting ? 'in chunks and preempted' : 'whole and shared'
      test(`${backendName} on ${architecture}: prefixes, soft prompts, LoRA and base together, ${how}`, async () => {
        const model = goldenModel(architecture)
        const backend = await create(model, setup.numBlocks)
        try {
          await runJobs(backend, model, jobsOf(architecture, names), setup)
        } finally {
          await backend.dispose()
        }
      })
    }
  }
}

/** Every case twice, so that the second finds or shares the blocks of the first. */
function jobsOf(architecture: string, names: readonly string[]): Job[] {
  const jobs = (adapter: string | null, dir: string): Job[] =>
    readGoldenCases(dir).flatMap((golden, i) => [
      { id: `${adapter}/${i}`, adapter, golden },
      { id: `${adapter}/${i} again`, adapter, golden },
    ])
  const ofAdapters = names.flatMap((name) => jobs(name, goldenAdapterDir(architecture, name)))
  // The base's goldens were made without a minimum length, so only the first, which meets no end of sequence, is comparable.
  return [...ofAdapters, ...jobs(null, goldenModelDir(architecture)).slice(0, 2)]
}

async function runJobs(backend: Backend, model: ModelSource, jobs: readonly Job[], setup: Setup): Promise<void> {
  const commands: EngineCommand[] = []
  const tokensOf = new Map<string, number[]>(jobs.map(({ id }) => [id, []]))
  let numPreemptions = 0
  const hear = (event: EngineEvent): void => {
    if (event.type !== 'step') return
    numPreemptions = event.stats.numPreemptions
    for (const { requestId: id, tokenIds, finish } of event.outputs) {
      tokensOf.get(id)?.push(...tokenIds)
      assert.equal(finish?.error ?? null, null)
    }
  }
  let nowMs = 0
  const adapters = new AdapterStore({
    device: backend,
    loader: { load: async ({ name, path }, id) => compileAdapter(path, model, id, name).adapter },
    hostBytes: 1 << 24,
    clock: () => nowMs++,
  })
  const engine = new Engine({
    backend,
    adapters,
    maxNumSeqs: Math.min(64, setup.maxNumBatchedTokens),
    maxNumBatchedTokens: setup.maxNumBatchedTokens,
    maxModelLen: 64,
    enablePrefixCaching: true,
    receive: () => commands.shift() ?? null,
    send: hear,
    clock: () => nowMs++,
    drawSeed: () => 1,
  })
  for (const name of new Set(jobs.flatMap(({ adapter }) => adapter ?? []))) {
    await adapters.register({ name, path: goldenAdapterDir(model.path.split('/').at(-1) ?? '', name) }, false)
  }
  for (const { id, adapter, golden } of jobs) {
    const sampling = { ...GREEDY, maxTokens: NUM_TOKENS, minTokens: adapter === null ? 0 : NUM_TOKENS, eosTokenIds: [2] }
    const request = { requestId: requestId(id), promptTokenIds: Int32Array.from(golden.prompt), sampling }
    const adapterId = adapter === null ? null : adapters.find(adapter)
    commands.push({ type: 'add-request', request: { ...request, adapterId, priority: 0, cacheSalt: '', arrivedAtMs: 0 } })
  }
  for (let step = 0; step === 0 || (step < MAX_STEPS && !engine.isIdle); step++) {
    await engine.step()
    engine.checkIntegrity()
  }
  for (const { id, golden } of jobs) assert.deepEqual(tokensOf.get(id), golden.tokens, id)
  assert.equal(numPreemptions > 0, setup.isPreempting, `${numPreemptions} preemptions`)
  adapters.dispose()
}
