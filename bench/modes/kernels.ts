// `bench kernels`: forward passes of one backend by themselves, decode and prefill, on the base and on distinct adapters.
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { Backend } from '../../src/backend/backend.ts'
import { createBackend } from '../../src/backend/create-backend.ts'
import { loadConfig } from '../../src/config/load-config.ts'
import { adapterId, NO_ADAPTER_SLOT } from '../../src/core/ids.ts'
import { createStepPlan, type StepPlan } from '../../src/core/step-plan.ts'
import { LorikeetError } from '../../src/errors.ts'
import { openModel } from '../../src/model/open-model.ts'
import { summarize } from '../metrics/statistics.ts'
import type { BenchOptions } from '../options.ts'

/** Decode rows, one a sequence; prefill rows, all of one sequence a quarter of the batch. */
const DECODE_ROWS = [1, 4, 8, 16, 32, 64]
const PREFILL_ROWS = [64, 256]
const PREFILL_SEQS = 4

/** Keys each decoding sequence attends to, where the model has that many positions. */
const CONTEXT_TOKENS = 192

const WARM_UPS = 3
const REPEATS = 20

export interface KernelCase {
  readonly name: string
  readonly numTokens: number
  readonly numAdapters: number
  /** ms a step. */
  readonly median: number
  readonly p90: number
  /** Median part inside native code, ms. */
  readonly native: number
}

export async function runKernels(options: BenchOptions, serveArgs: readonly string[]): Promise<readonly KernelCase[]> {
  const { config } = loadConfig(serveArgs, process.env)
  const model = openModel(config.model.path)
  const context = Math.min(CONTEXT_TOKENS, model.spec.maxPositions - Math.max(...PREFILL_ROWS) / PREFILL_SEQS - 1)
  if (context < 1)
    throw new LorikeetError('CONFIG_INVALID', { option: '--model', reason: 'its context is too short to measure' })
  const backend = await createBackend({ config, model, maxModelLen: model.spec.maxPositions, onProgress: () => undefined })
  try {
    const named = config.adapters.adapters.slice(0, options['num-adapters'] ?? config.adapters.adapters.length)
    const slots = named.map(({ path, name }, index) => {
      const slot = backend.loadAdapter(compileAdapter(path, model, adapterId(index), name).adapter)
      if (slot === null)
        throw new LorikeetError('CONFIG_INVALID', { option: '--adapter', reason: `${name} does not fit the device` })
      return slot as number
    })
    const repeats = options['num-prompts'] ?? REPEATS
    const cases: KernelCase[] = []
    for (const [phase, sizes] of [['decode', DECODE_ROWS] as const, ['prefill', PREFILL_ROWS] as const]) {
      for (const rows of sizes) {
        const numSeqs = phase === 'decode' ? rows : PREFILL_SEQS
        for (const used of slots.length === 0 ? [[]] : [[], slots.slice(0, numSeqs)]) {
          const plan = createPlan(backend, numSeqs, rows / numSeqs, context, used, model.spec.vocabSize)
          if (plan !== null) cases.push(await measure(`${phase} ${rows}`, backend, plan, used.length, repeats))
        }
      }
    }
    return cases
  } finally {
    await backend.dispose()
  }
}

/** `rowsPerSeq` new tokens for each sequence after `context` cached ones; null when the KV pool is too small for it. */
function createPlan(
  backend: Backend,
  numSeqs: number,
  rowsPerSeq: number,
  context: number,
  slots: readonly number[],
  vocabSize: number,
): StepPlan | null {
  const { blockSize, numBlocks } = backend.capacity
  const maxBlocksPerSeq = Math.ceil((context + rowsPerSeq) / blockSize)
  if (numSeqs * maxBlocksPerSeq > numBlocks) return null
  const numTokens = numSeqs * rowsPerSeq
  const plan = createStepPlan({ maxNumBatchedTokens: numTokens, maxNumSeqs: numSeqs, maxBlocksPerSeq })
  Object.assign(plan, { numTokens, numSeqs, numLogitRows: numSeqs, needsLogits: false })
  for (let seq = 0; seq < numSeqs; seq += 1) {
    const firstBlock = seq * maxBlocksPerSeq
    for (let block = 0; block < maxBlocksPerSeq; block += 1) plan.blockTables[firstBlock + block] = firstBlock + block
    for (let row = 0; row < rowsPerSeq; row += 1) {
      const token = seq * rowsPerSeq + row
      plan.tokenIds[token] = (token * 7919) % vocabSize
      plan.positions[token] = context + row
      plan.slotMapping[token] = firstBlock * blockSize + context + row
      plan.adapterSlotOfToken[token] = slots[seq % Math.max(1, slots.length)] ?? NO_ADAPTER_SLOT
    }
    plan.queryStart[seq] = seq * rowsPerSeq
    plan.contextLens[seq] = context + rowsPerSeq
    plan.promptEnds[seq] = context + rowsPerSeq
    plan.logitRows[seq] = (seq + 1) * rowsPerSeq - 1
  }
  plan.queryStart[numSeqs] = numTokens
  return plan
}

async function measure(
  name: string,
  backend: Backend,
  plan: StepPlan,
  numAdapters: number,
  repeats: number,
): Promise<KernelCase> {
  const stepMs: number[] = []
  const nativeMs: number[] = []
  for (let turn = -WARM_UPS; turn < repeats; turn += 1) {
    const startMs = performance.now()
    await backend.execute(plan)
    if (turn < 0) continue
    stepMs.push(performance.now() - startMs)
    nativeMs.push(backend.lastNativeMs)
  }
  const steps = summarize(Float64Array.from(stepMs), [90])
  const native = summarize(Float64Array.from(nativeMs), [])
  return {
    name,
    numTokens: plan.numTokens,
    numAdapters,
    median: steps.median,
    p90: steps.percentiles['90'] ?? 0,
    native: native.median,
  }
}

export function formatKernels(cases: readonly KernelCase[]): string {
  const head = `${'step'.padEnd(14)}${['adapters', 'median ms', 'p90 ms', 'native ms', 'tok/s'].map((name) => name.padStart(11)).join('')}`
  const rows = cases.map(({ name, numAdapters, median, p90, native, numTokens }) => {
    const cells = [
      String(numAdapters),
      median.toFixed(2),
      p90.toFixed(2),
      native.toFixed(2),
      ((numTokens / median) * 1000).toFixed(0),
    ]
    return `${name.padEnd(14)}${cells.map((cell) => cell.padStart(11)).join('')}`
  })
  return [head, ...rows].join('\n')
}
