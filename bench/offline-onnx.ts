// Decode steps of the onnx backend alone, without engine or HTTP: step time of the base, of as many distinct adapters as
// sequences, and of the base while adapters are loaded but unused. The cases take turns step by step in one process, so that
// other load on the machine hits all alike.
//
//   node --import tsx bench/offline-onnx.ts [--streams 1,8,16] [--context 192] [--steps 40] [--adapters 16] [--rank 16] [--threads 2]

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { compileAdapter } from '../src/adapter/compile.ts'
import { createOnnxBackend, type OnnxBackend } from '../src/backend/onnx/onnx-backend.ts'
import { adapterId, NO_ADAPTER_SLOT } from '../src/core/ids.ts'
import { invariant } from '../src/core/invariant.ts'
import { createStepPlan, type StepPlan } from '../src/core/step-plan.ts'
import type { ModelSource } from '../src/model/model-source.ts'
import { openModel } from '../src/model/open-model.ts'
import { ensureRandomAdapters, ensureRandomModel } from './random-model.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const BLOCK_SIZE = 16
const SEED = 0
const WARM_UP_STEPS = 3

interface Case {
  readonly name: string
  readonly plan: StepPlan
  readonly stepMs: number[]
  readonly outsideMs: number[]
  readonly cpuMs: number[]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      streams: { type: 'string', default: '1,8,16' },
      context: { type: 'string', default: '192' },
      steps: { type: 'string', default: '40' },
      adapters: { type: 'string', default: '16' },
      rank: { type: 'string', default: '16' },
      threads: { type: 'string', default: '2' },
      out: { type: 'string' },
    },
  })
  const context = Number(values.context)
  const environment = describeEnvironment()
  const where = { out: join('.cache/bench', 'smollm-135m'), shape: 'smollm-135m', seed: SEED } as const
  const model = openModel(ensureRandomModel(where))
  const numAdapters = Number(values.adapters)
  const dirs = ensureRandomAdapters({ ...where, numAdapters, rank: Number(values.rank) })
  const streams = values.streams.split(',').map(Number)
  const blocksPerSeq = Math.ceil((context + 1) / BLOCK_SIZE)
  const backend = await createOnnxBackend({
    model,
    blockSize: BLOCK_SIZE,
    kvCache: { numBlocks: Math.max(...streams) * blocksPerSeq },
    adapterBytes: 2 ** 31,
    numThreads: Number(values.threads),
  })
  try {
    const base = streams.map((count) => createCase(`base ${count}`, decodePlan(model, count, context, [])))
    await runTurns(backend, base, Number(values.steps))
    const slots = loadAll(backend, model, dirs)
    const used = streams.flatMap((count) => [
      createCase(`unused ${count}`, decodePlan(model, count, context, [])),
      createCase(`distinct ${count}`, decodePlan(model, count, context, slots)),
    ])
    await runTurns(backend, used, Number(values.steps))
    const rows = [...base, ...used].map(summarize)
    for (const row of rows) console.log(JSON.stringify(row))
    if (values.out !== undefined) writeResult(values.out, { environment, options: values, rows })
  } finally {
    await backend.dispose()
  }
}

function loadAll(backend: OnnxBackend, model: ModelSource, dirs: readonly string[]): readonly number[] {
  return dirs.map((dir, i) => {
    const { adapter } = compileAdapter(dir, model, adapterId(i), `lora-${i}`)
    const slot = backend.loadAdapter(adapter)
    invariant(slot !== null, 'the bench adapters fit')
    return slot
  })
}

/** One token for each of `count` sequences whose context is `context` tokens; sequence i uses slots[i]. */
function decodePlan(model: ModelSource, count: number, context: number, slots: readonly number[]): StepPlan {
  const maxBlocksPerSeq = Math.ceil((context + 1) / BLOCK_SIZE)
  const plan = createStepPlan({ maxNumBatchedTokens: count, maxNumSeqs: count, maxBlocksPerSeq })
  Object.assign(plan, { numTokens: count, numSeqs: count, numLogitRows: count, needsLogits: false })
  for (let seq = 0; seq < count; seq++) {
    for (let i = 0; i < maxBlocksPerSeq; i++) plan.blockTables[seq * maxBlocksPerSeq + i] = seq * maxBlocksPerSeq + i
    plan.tokenIds[seq] = (seq * 7919) % model.spec.vocabSize
    plan.positions[seq] = context
    plan.slotMapping[seq] = seq * maxBlocksPerSeq * BLOCK_SIZE + context
    plan.queryStart[seq] = seq
    plan.contextLens[seq] = context + 1
    plan.promptEnds[seq] = context + 1
    plan.adapterSlotOfToken[seq] = slots[seq % Math.max(1, slots.length)] ?? NO_ADAPTER_SLOT
    plan.logitRows[seq] = seq
  }
  plan.queryStart[count] = count
  return plan
}

function createCase(name: string, plan: StepPlan): Case {
  return { name, plan, stepMs: [], outsideMs: [], cpuMs: [] }
}

async function runTurns(backend: OnnxBackend, cases: readonly Case[], numSteps: number): Promise<void> {
  for (let step = -WARM_UP_STEPS; step < numSteps; step++) {
    for (const { plan, stepMs, outsideMs, cpuMs } of cases) {
      const cpuBefore = process.cpuUsage()
      const started = performance.now()
      await backend.execute(plan)
      if (step < 0) continue
      stepMs.push(performance.now() - started)
      const { user, system } = process.cpuUsage(cpuBefore)
      cpuMs.push((user + system) / 1000)
      outsideMs.push((stepMs.at(-1) as number) - backend.lastNativeMs)
    }
  }
}

function summarize({ name, plan, stepMs, outsideMs, cpuMs }: Case) {
  const medianMs = quantile(stepMs, 0.5)
  return {
    case: name,
    medianMs,
    fastestMs: quantile(stepMs, 0),
    tokensPerSecond: (plan.numSeqs * 1000) / medianMs,
    /** With one thread this says what a step costs on a machine that others use too; more threads spin while they wait. */
    fastestCpuMs: quantile(cpuMs, 0),
    outsideNative: quantile(outsideMs, 0.5) / medianMs,
  }
}

function quantile(values: readonly number[], q: number): number {
  const sorted = values.slice().sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN
}

await main()
