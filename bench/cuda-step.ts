// The GPU backend at Llama-3-8B's shape with random weights: linear layers with rank-16 adapters, and whole decode steps.
//
//   node --import tsx bench/cuda-step.ts [--parts linears,step] [--out bench/results/cuda-step.json]
//
// Under a profiler, fewer of everything: --layers 2 --cases 64/64 (rows/adapters).

import { parseArgs } from 'node:util'
import { LinearsBench } from './cuda/linears-bench.ts'
import { createAdapters, openLlama8b } from './cuda/llama-8b.ts'
import { StepBench } from './cuda/step-bench.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const RANK = 16
const CONTEXT = 1024

/** Rows, distinct adapters, and what is asked of us in milliseconds (docs/performance.md). */
const LINEAR_CASES: readonly (readonly [rows: number, adapters: number, targetMs: number | null])[] = [
  [1, 1, 5.4],
  [8, 8, 5.7],
  [32, 32, 6.5],
  [64, 64, 7.4],
  [64, 8, 5.8],
  [64, 1, 5.7],
  [256, 64, 8.8],
  [512, 8, null],
  [2048, 8, null],
]

const STEP_CASES: readonly (readonly [rows: number, adapters: number])[] = [
  [1, 0],
  [8, 0],
  [32, 0],
  [64, 0],
  [128, 0],
  [256, 0],
  [1, 1],
  [8, 8],
  [32, 32],
  [64, 64],
]

const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'linears,step' },
    layers: { type: 'string', default: '32' },
    cases: { type: 'string' },
    out: { type: 'string' },
  },
})
const parts = values.parts.split(',')
const cases = values.cases?.split(',')
const isAsked = (numRows: number, numAdapters: number): boolean => cases?.includes(`${numRows}/${numAdapters}`) ?? true
const environment = describeEnvironment()
const model = openLlama8b(Number(values.layers))
const fixed = (value: number | null): string => (value === null ? '-' : value.toFixed(2)).padStart(9)
const result: Record<string, unknown> = { environment, rank: RANK, context: CONTEXT }

if (parts.includes('linears')) {
  const bench = new LinearsBench(model, createAdapters(model, 64, RANK), 2048)
  result['device'] = bench.deviceName
  console.log(`${bench.deviceName}\nlinears of a step, ms\n  rows adapters      base      with     alone  overhead    target`)
  result['linears'] = LINEAR_CASES.filter(([rows, adapters]) => isAsked(rows, adapters)).map(
    ([numRows, numAdapters, targetMs]) => {
      const times = bench.measure(numRows, numAdapters)
      const overhead = 100 * (times.adaptersMs / times.baseMs - 1)
      const cells = [times.baseMs, times.adaptersMs, times.adaptersAloneMs, overhead, targetMs].map(fixed).join(' ')
      console.log(`${String(numRows).padStart(6)} ${String(numAdapters).padStart(8)} ${cells}`)
      return { numRows, numAdapters, ...times, targetMs }
    },
  )
  bench.dispose()
}

if (parts.includes('step')) {
  const bench = await StepBench.create(model, createAdapters(model, 64, RANK), CONTEXT, 256)
  console.log(`whole decode step at context ${CONTEXT}, ms\n  rows adapters      step      host     floor     ratio`)
  const steps: object[] = []
  for (const [numRows, numAdapters] of STEP_CASES.filter((each) => isAsked(...each))) {
    const times = await bench.measure(numRows, numAdapters)
    const cells = [times.stepMs, times.hostMs, times.floorMs, times.stepMs / times.floorMs].map(fixed).join(' ')
    console.log(`${String(numRows).padStart(6)} ${String(numAdapters).padStart(8)} ${cells}`)
    steps.push(times)
  }
  result['steps'] = steps
  await bench.dispose()
}

if (values.out !== undefined) writeResult(values.out, result)
