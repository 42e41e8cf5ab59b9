// Tokens a second of the engine with as many distinct rank-16 adapters as streams, beside the base alone and beside adapters that
// are registered but unused; and the share of a step outside native code. EngineClient on its own thread, no HTTP.
//
//   npm run build && node --import tsx bench/engine-throughput.ts [--model random|demo] [--rounds N] [--max-minutes 6.5]

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LorikeetError } from '../src/errors.ts'
import { AdapterRack, type AdapterUse, caseName, formatMedians, runCase, SampleTable, sampleOf } from './engine-cases.ts'
import { EngineRunner } from './engine-runner.ts'
import { randomPrompts } from './generation-run.ts'
import { ensureRandomAdapters, ensureRandomModel, type ShapeName } from './random-model.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const SEED = 0
const RANK = 16
/** A round takes about a minute with the random model; with the demo model a few seconds, of which single runs vary more. */
const DEFAULT_ROUNDS = { random: 5, demo: 15 } as const
const CONCURRENCIES = [1, 8, 16] as const
const MAX_STREAMS = 16
/** Enough to compile every graph variant and touch every weight. */
const WARM_UP_TOKENS = 8

/** Goals of the ratios below: a mixed batch keeps 70 % of the base, unused adapters cost under 2 %, less than 10 % is not native. */
const MIXED_GOAL = 0.7
const UNUSED_GOAL = 0.98
const OUTSIDE_NATIVE_GOAL = 0.1

interface Subject {
  readonly modelDir: string
  readonly shape: ShapeName
}

function subject(name: string): Subject {
  if (name === 'demo') return { modelDir: 'demo/model', shape: 'stories260k' }
  if (name !== 'random') throw new LorikeetError('CONFIG_INVALID', { option: '--model', reason: 'give random or demo' })
  const shape = 'smollm-135m'
  return { modelDir: ensureRandomModel({ out: join('.cache/bench', shape), shape, seed: SEED }), shape }
}

/** Unused before and after distinct by turns, so that what distinct leaves behind (warm caches, a full arena) favours neither. */
function usesOfRound(round: number): readonly AdapterUse[] {
  return round % 2 === 0 ? ['none', 'unused', 'distinct'] : ['none', 'distinct', 'unused']
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'random' },
      rounds: { type: 'string' },
      'max-minutes': { type: 'string', default: '6.5' },
      'prompt-tokens': { type: 'string', default: '128' },
      'output-tokens': { type: 'string', default: '128' },
      threads: { type: 'string', default: '2' },
      backend: { type: 'string', default: 'onnx' },
      out: { type: 'string' },
    },
  })
  const { modelDir, shape } = subject(values.model)
  const environment = describeEnvironment()
  const adapterDirs = ensureRandomAdapters({
    out: join('.cache/bench', shape),
    shape,
    seed: SEED,
    numAdapters: MAX_STREAMS,
    rank: RANK,
  })
  const flags = ['--backend', values.backend, '--num-threads', values.threads, '--no-enable-prefix-caching']
  const runner = await EngineRunner.start(['--model', modelDir, ...flags])
  const rack = new AdapterRack(runner, adapterDirs)
  const prompts = randomPrompts(MAX_STREAMS, Number(values['prompt-tokens']), runner.model.vocabSize)

  const runRound = async (round: number, numTokens: number, table: SampleTable): Promise<void> => {
    for (const adapters of usesOfRound(round)) {
      for (const numStreams of CONCURRENCIES) {
        const one = { numStreams, adapters }
        table.add(caseName(one), sampleOf(await runCase(runner, rack, one, prompts, numTokens)))
      }
    }
  }
  try {
    await runRound(0, WARM_UP_TOKENS, new SampleTable())
    const table = new SampleTable()
    const deadlineMs = performance.now() + Number(values['max-minutes']) * 60_000
    const maxRounds = Number(values.rounds ?? DEFAULT_ROUNDS[values.model === 'demo' ? 'demo' : 'random'])
    let numRounds = 0
    for (let roundMs = 0; numRounds < maxRounds && performance.now() + roundMs <= deadlineMs; numRounds++) {
      const beganMs = performance.now()
      await runRound(numRounds, Number(values['output-tokens']), table)
      roundMs = performance.now() - beganMs
      console.error(`round ${numRounds + 1}: ${(roundMs / 1000).toFixed(0)} s`)
    }
    const setup = { ...values, shape, rank: RANK, seed: SEED, numRounds, engine: runner.model }
    report(table, { bench: 'engine-throughput', environment, setup }, values.out ?? `bench/results/engine-${values.model}.json`)
  } finally {
    await runner.shutdown()
  }
}

function report(table: SampleTable, about: object, out: string): void {
  const medians = table.medians()
  const ratios = CONCURRENCIES.flatMap((numStreams) => {
    const base = caseName({ numStreams, adapters: 'none' })
    return (['unused', 'distinct'] as const).map((adapters) => ({
      above: caseName({ numStreams, adapters }),
      below: base,
      goal: adapters === 'distinct' ? MIXED_GOAL : UNUSED_GOAL,
      decode: table.ratio(caseName({ numStreams, adapters }), base, 'decodeRate'),
      withPrefill: table.ratio(caseName({ numStreams, adapters }), base, 'totalRate'),
    }))
  })
  console.log(formatMedians(medians))
  for (const { above, below, goal, decode, withPrefill } of ratios) {
    console.log(`${above} / ${below}: decode ${decode.toFixed(3)}, with prefill ${withPrefill.toFixed(3)} (goal ${goal})`)
  }
  writeResult(out, { ...about, goals: { outsideNative: OUTSIDE_NATIVE_GOAL }, ratios, medians })
}

await main()
