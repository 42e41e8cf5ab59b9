// Tokens a second of the engine at 16 streams: the base, each family of adapters alone (16 of them, one a stream), nine families in one
// batch; and one mixed batch beside the same requests run adapter by adapter, at 2, 8 and 32 adapters. EngineClient, no HTTP.
//
//   npm run build && node --import tsx bench/engine-families.ts [--model random|demo] [--rounds N] [--max-minutes M]

import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { AdapterId } from '../src/core/ids.ts'
import { LorikeetError } from '../src/errors.ts'
import { formatMedians, SampleTable, sampleOf } from './engine-cases.ts'
import { EngineRunner } from './engine-runner.ts'
import { ensureFamilyAdapter, FAMILIES, type Family } from './family-adapters.ts'
import { median, randomPrompts } from './generation-run.ts'
import { ensureRandomModel, type ShapeName } from './random-model.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const NUM_STREAMS = 16
/** What a mixed batch is to keep of the base's throughput. */
const MIXED_GOAL = 0.5
const ALONE_COUNTS = [2, 8, 32] as const
const WARM_UP_TOKENS = 4

type Case = 'base' | 'mixed' | Family
const CASES: readonly Case[] = ['base', ...FAMILIES, 'mixed']

interface Together {
  readonly numAdapters: number
  /** Seconds of one batch, and of the adapters one after the other. */
  readonly oneBatch: number[]
  readonly oneByOne: number[]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'random' },
      rounds: { type: 'string', default: '3' },
      'max-minutes': { type: 'string', default: '8' },
      'prompt-tokens': { type: 'string', default: '64' },
      'output-tokens': { type: 'string', default: '48' },
      threads: { type: 'string', default: '2' },
      out: { type: 'string' },
    },
  })
  if (values.model !== 'demo' && values.model !== 'random') {
    throw new LorikeetError('CONFIG_INVALID', { option: '--model', reason: 'give random or demo' })
  }
  const shape: ShapeName = values.model === 'demo' ? 'stories260k' : 'smollm-135m'
  const root = join('.cache/bench', shape)
  const modelDir = values.model === 'demo' ? 'demo/model' : ensureRandomModel({ out: root, shape, seed: 0 })
  const environment = describeEnvironment()
  const flags = ['--num-threads', values.threads, '--no-enable-prefix-caching', '--max-num-seqs', '32']
  const runner = await EngineRunner.start(['--model', modelDir, ...flags])
  const bench = new FamilyBench(runner, root, shape, Number(values['prompt-tokens']))
  const numTokens = Number(values['output-tokens'])
  const table = new SampleTable()
  const together: Together[] = ALONE_COUNTS.map((numAdapters) => ({ numAdapters, oneBatch: [], oneByOne: [] }))
  const deadlineMs = performance.now() + Number(values['max-minutes']) * 60_000
  let numRounds = 0
  try {
    await bench.round(WARM_UP_TOKENS, new SampleTable(), [])
    for (let roundMs = 0; numRounds < Number(values.rounds) && performance.now() + roundMs <= deadlineMs; numRounds++) {
      const beganMs = performance.now()
      await bench.round(numTokens, table, together)
      roundMs = performance.now() - beganMs
      console.error(`round ${numRounds + 1}: ${(roundMs / 1000).toFixed(0)} s`)
    }
    const setup = { ...values, shape, numRounds, engine: runner.model }
    report(table, together, { bench: 'engine-families', environment, setup }, values)
  } finally {
    await runner.shutdown()
  }
}

class FamilyBench {
  readonly #runner: EngineRunner
  readonly #root: string
  readonly #shape: ShapeName
  readonly #prompts: readonly Int32Array[]

  constructor(runner: EngineRunner, root: string, shape: ShapeName, promptTokens: number) {
    this.#runner = runner
    this.#root = root
    this.#shape = shape
    this.#prompts = randomPrompts(Math.max(...ALONE_COUNTS), promptTokens, runner.model.vocabSize)
  }

  async round(numTokens: number, table: SampleTable, together: readonly Together[]): Promise<void> {
    for (const one of CASES) {
      const names = this.#adaptersOf(one)
      const ids = await this.#load(names)
      const rows = Array.from({ length: NUM_STREAMS }, (_, i) => ids[i] ?? null)
      table.add(one, sampleOf(await this.#runner.generate(this.#prompts.slice(0, NUM_STREAMS), numTokens, rows)))
      await this.#unload(names)
    }
    for (const { numAdapters, oneBatch, oneByOne } of together) {
      const names = mixedNames(numAdapters)
      const ids = await this.#load(names)
      const prompts = this.#prompts.slice(0, numAdapters)
      oneBatch.push((await this.#runner.generate(prompts, numTokens, ids)).totalMs / 1000)
      let alone = 0
      for (const [i, id] of ids.entries())
        alone += (await this.#runner.generate(prompts.slice(i, i + 1), numTokens, [id])).totalMs
      oneByOne.push(alone / 1000)
      await this.#unload(names)
    }
  }

  #adaptersOf(one: Case): readonly AdapterName[] {
    if (one === 'base') return []
    if (one === 'mixed') return mixedNames(NUM_STREAMS)
    return Array.from({ length: NUM_STREAMS }, (_, index) => ({ family: one, index }))
  }

  async #load(names: readonly AdapterName[]): Promise<readonly AdapterId[]> {
    const ids: AdapterId[] = []
    for (const { family, index } of names) {
      const dir = ensureFamilyAdapter(this.#root, this.#shape, family, index)
      ids.push(await this.#runner.loadAdapter(`${family}-${index}`, dir))
    }
    return ids
  }

  async #unload(names: readonly AdapterName[]): Promise<void> {
    for (const { family, index } of names) await this.#runner.unloadAdapter(`${family}-${index}`)
  }
}

interface AdapterName {
  readonly family: Family
  readonly index: number
}

/** Families in turn. */
function mixedNames(count: number): readonly AdapterName[] {
  return Array.from({ length: count }, (_, i) => ({
    family: FAMILIES[i % FAMILIES.length] as Family,
    index: Math.floor(i / FAMILIES.length),
  }))
}

function report(
  table: SampleTable,
  together: readonly Together[],
  about: object,
  { model, out }: { readonly model: string; readonly out?: string | undefined },
): void {
  const medians = table.medians()
  console.log(formatMedians(medians))
  const ratios = CASES.filter((one) => one !== 'base').map((one) => ({
    above: one,
    below: 'base',
    goal: one === 'mixed' ? MIXED_GOAL : null,
    decode: table.ratio(one, 'base', 'decodeRate'),
    withPrefill: table.ratio(one, 'base', 'totalRate'),
  }))
  for (const { above, decode, withPrefill } of ratios) {
    console.log(`${above} / base: decode ${decode.toFixed(2)}, with prefill ${withPrefill.toFixed(2)}`)
  }
  const batches = together.map(({ numAdapters, oneBatch, oneByOne }) => ({
    numAdapters,
    oneBatchS: median(oneBatch),
    oneByOneS: median(oneByOne),
    speedup: median(oneBatch.map((seconds, i) => (oneByOne[i] ?? Number.NaN) / seconds)),
  }))
  for (const { numAdapters, oneBatchS, oneByOneS, speedup } of batches) {
    console.log(
      `${numAdapters} adapters: one batch ${oneBatchS.toFixed(2)} s, one by one ${oneByOneS.toFixed(2)} s, ${speedup.toFixed(1)}x`,
    )
  }
  writeResult(out ?? `bench/results/families-${model}.json`, { ...about, ratios, batches, medians })
}

await main()
