// Lorikeet beside llama.cpp: the same random 135M Llama in float32, the same prompts, the same number of threads, taking turns in
// one process. llama.cpp is called through its native addon, Lorikeet through EngineClient on its own thread; no HTTP on either side.
//
//   npm run build && node --import tsx bench/llama-cpp.ts [--rounds 5] [--max-minutes 6.5] [--out FILE]

import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LorikeetError } from '../src/errors.ts'
import { AdapterRack, caseName, type EngineCase, formatMedians, runCase, SampleTable, sampleOf } from './engine-cases.ts'
import { EngineRunner } from './engine-runner.ts'
import { decodeRate, type GenerationRun, randomPrompts, totalRate } from './generation-run.ts'
import { type AddonLora, KV_TYPES, type KvType, loadLlamaCpp, NODE_LLAMA_CPP_VERSION } from './llama-cpp-addon.ts'
import { LlamaCppRunner, type LlamaCppSettings } from './llama-cpp-runner.ts'
import { convertAdapter, convertModel } from './llama-gguf.ts'
import { ensureRandomAdapters, ensureRandomModel, SHAPES } from './random-model.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const SHAPE = 'smollm-135m'
const SEED = 0
const RANK = 16
const MAX_STREAMS = 16
/** Enough to compile every graph variant and touch every weight. */
const WARM_UP_TOKENS = 8
/** Tokens compared before anything is timed: 4 prompts of 32. */
const CHECK_PROMPTS = 4
const CHECK_TOKENS = 32

const LLAMA_CASES = [
  { name: 'llama.cpp 1 none', numStreams: 1, withLora: false },
  { name: 'llama.cpp 1 lora', numStreams: 1, withLora: true },
  { name: 'llama.cpp 16 none', numStreams: MAX_STREAMS, withLora: false },
] as const

const OUR_CASES: readonly EngineCase[] = [
  { numStreams: 1, adapters: 'none' },
  { numStreams: 8, adapters: 'none' },
  { numStreams: MAX_STREAMS, adapters: 'none' },
  { numStreams: MAX_STREAMS, adapters: 'distinct' },
  { numStreams: 1, adapters: 'distinct' },
  { numStreams: MAX_STREAMS, adapters: 'unused' },
]

/** What is compared, and how much of it issue-level goals ask for. */
const RATIOS = [
  { above: 'lorikeet 1 none', below: 'llama.cpp 1 none', goal: 1.2 },
  { above: 'lorikeet 16 none', below: 'llama.cpp 16 none', goal: 4 },
  { above: 'lorikeet 16 distinct', below: 'llama.cpp 1 lora', goal: 5 },
  { above: 'lorikeet 16 distinct', below: 'lorikeet 16 none', goal: 0.7 },
  { above: 'lorikeet 16 unused', below: 'lorikeet 16 none', goal: 0.98 },
] as const

interface Options {
  readonly rounds: number
  readonly maxMinutes: number
  readonly promptTokens: number
  readonly outputTokens: number
  readonly out: string
  readonly llama: LlamaCppSettings
}

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      'max-minutes': { type: 'string', default: '6.5' },
      'prompt-tokens': { type: 'string', default: '128' },
      'output-tokens': { type: 'string', default: '128' },
      threads: { type: 'string', default: '2' },
      out: { type: 'string', default: 'bench/results/llama-cpp.json' },
      // llama.cpp's own defaults; flash attention and a float32 cache were slower or equal on the CPU for these lengths.
      'llama-batch': { type: 'string', default: '512' },
      'llama-flash-attention': { type: 'boolean', default: false },
      'llama-kv': { type: 'string', default: 'f16' },
    },
  })
  const kvType = values['llama-kv']
  if (!(kvType in KV_TYPES)) throw new LorikeetError('CONFIG_INVALID', { option: '--llama-kv', reason: 'give f16 or f32' })
  return {
    rounds: Number(values.rounds),
    maxMinutes: Number(values['max-minutes']),
    promptTokens: Number(values['prompt-tokens']),
    outputTokens: Number(values['output-tokens']),
    out: values.out,
    llama: {
      numThreads: Number(values.threads),
      batchSize: Number(values['llama-batch']),
      flashAttention: values['llama-flash-attention'],
      kvType: kvType as KvType,
    },
  }
}

interface Contestants {
  readonly llama: LlamaCppRunner
  readonly lora: AddonLora
  readonly release: string
  readonly ours: EngineRunner
  readonly rack: AdapterRack
  dispose(): Promise<void>
}

async function openContestants(options: Options): Promise<Contestants> {
  const out = join('.cache/bench', SHAPE)
  const modelDir = ensureRandomModel({ out, shape: SHAPE, seed: SEED })
  const adapterDirs = ensureRandomAdapters({ out, shape: SHAPE, seed: SEED, numAdapters: MAX_STREAMS, rank: RANK })
  const [loraDir = ''] = adapterDirs
  const modelFile = join(out, 'model.gguf')
  const loraFile = join(out, 'lora-00.gguf')
  ifOlder(modelFile, join(modelDir, 'model.safetensors'), () => convertModel(modelDir, modelFile))
  ifOlder(loraFile, join(loraDir, 'adapter_model.safetensors'), () => convertAdapter(modelDir, loraDir, loraFile))

  const library = await loadLlamaCpp(options.llama.numThreads)
  const llama = await LlamaCppRunner.open(library, modelFile, options.llama)
  const lora = await llama.loadLora(loraFile)
  // The prefix cache would shorten our prompts from the second round on; llama.cpp computes them every time.
  const flags = ['--num-threads', String(options.llama.numThreads), '--no-enable-prefix-caching']
  const ours = await EngineRunner.start(['--model', modelDir, ...flags])
  const dispose = async (): Promise<void> => {
    await ours.shutdown()
    await lora.dispose()
    await llama.dispose()
    await library.dispose()
  }
  return { llama, lora, release: library.release, ours, rack: new AdapterRack(ours, adapterDirs), dispose }
}

function ifOlder(output: string, input: string, make: () => void): void {
  if (existsSync(output) && statSync(output).mtimeMs >= statSync(input).mtimeMs) return
  make()
}

/** Same greedy tokens, base and adapter, or no timing at all. llama.cpp's cache is float32 here: ours is, and half precision flips ties. */
async function checkTokens({ llama, lora, ours, rack }: Contestants, prompts: readonly Int32Array[]): Promise<number> {
  const some = prompts.slice(0, CHECK_PROMPTS)
  await rack.fill()
  const [firstAdapter = null] = rack.ids
  for (const withLora of [false, true]) {
    const theirs = await llama.generate(some, CHECK_TOKENS, withLora ? lora : null, 'f32')
    const own = await ours.generate(
      some,
      CHECK_TOKENS,
      some.map(() => (withLora ? firstAdapter : null)),
    )
    theirs.tokens.forEach((row, index) => {
      const mine = own.tokens[index] ?? new Int32Array()
      const at = row.findIndex((token, position) => token !== mine[position])
      if (at === -1) return
      const detail = `prompt ${index}, ${withLora ? 'LoRA' : 'base'}, output ${at}: llama.cpp ${row[at]}, Lorikeet ${mine[at]}`
      throw new LorikeetError('INTERNAL', { detail: `the engines disagree, so no time is taken: ${detail}` })
    })
  }
  return 2 * CHECK_PROMPTS * CHECK_TOKENS
}

/** llama.cpp and Lorikeet take turns case by case. */
async function runRound(contestants: Contestants, prompts: readonly Int32Array[], numTokens: number, table: SampleTable) {
  const { llama, lora, ours, rack } = contestants
  const turns = Math.max(LLAMA_CASES.length, OUR_CASES.length)
  for (let turn = 0; turn < turns; turn++) {
    const theirCase = LLAMA_CASES[turn]
    if (theirCase !== undefined) {
      const some = prompts.slice(0, theirCase.numStreams)
      const run: GenerationRun = await llama.generate(some, numTokens, theirCase.withLora ? lora : null)
      table.add(theirCase.name, { totalRate: totalRate(run), decodeRate: decodeRate(run), outsideNative: null })
    }
    const ourCase = OUR_CASES[turn]
    if (ourCase !== undefined) {
      table.add(caseName(ourCase), sampleOf(await runCase(ours, rack, ourCase, prompts, numTokens)))
    }
  }
}

async function main(): Promise<void> {
  const options = parseOptions()
  const environment = describeEnvironment()
  const contestants = await openContestants(options)
  const prompts = randomPrompts(MAX_STREAMS, options.promptTokens, SHAPES[SHAPE].vocabSize)
  try {
    const numTokensCompared = await checkTokens(contestants, prompts)
    console.error(`same greedy tokens: ${numTokensCompared} of ${numTokensCompared}`)
    await runRound(contestants, prompts, WARM_UP_TOKENS, new SampleTable())

    const table = new SampleTable()
    const startMs = performance.now()
    let numRounds = 0
    for (let roundMs = 0; numRounds < options.rounds; numRounds++) {
      const beganMs = performance.now()
      // The machine is often one that must be given back: keep what there is rather than overrun.
      if (beganMs - startMs + roundMs > options.maxMinutes * 60_000) break
      await runRound(contestants, prompts, options.outputTokens, table)
      roundMs = performance.now() - beganMs
      console.error(`round ${numRounds + 1}: ${(roundMs / 1000).toFixed(0)} s`)
    }
    const medians = table.medians()
    const ratios = RATIOS.map(({ above, below, goal }) => ({
      above,
      below,
      goal,
      decode: table.ratio(above, below, 'decodeRate'),
      withPrefill: table.ratio(above, below, 'totalRate'),
    }))
    console.log(formatMedians(medians))
    for (const { above, below, goal, decode, withPrefill } of ratios) {
      console.log(`${above} / ${below}: decode ${decode.toFixed(2)}, with prefill ${withPrefill.toFixed(2)} (goal ${goal})`)
    }
    const llamaCpp = { nodeLlamaCpp: NODE_LLAMA_CPP_VERSION, release: contestants.release, ...options.llama }
    const setup = { shape: SHAPE, ...SHAPES[SHAPE], dtype: 'float32', rank: RANK, seed: SEED, numRounds, numTokensCompared }
    const lengths = { promptTokens: options.promptTokens, outputTokens: options.outputTokens }
    writeResult(options.out, { bench: 'llama-cpp', environment, setup: { ...setup, ...lengths }, llamaCpp, ratios, medians })
  } finally {
    await contestants.dispose()
  }
}

await main()
