// R1 to R4: what adapters cost in throughput.
import {
  judge,
  measureCapacity,
  notJudged,
  onAdapters,
  onBase,
  type Preset,
  type PresetBench,
  percent,
  type Verdict,
  value,
} from './preset.ts'

/** vLLM's idle-LoRA overhead after its fix (pull request 25914). */
const IDLE_TAX_BAR = 0.014

/** TensorRT-LLM keeps 64 to 74 %, SGLang's merged path 69 to 73 % of base; vLLM V1 about 96 % on its own workload. */
const PERCENT_OF_BASE_BAR = 0.74

/** S-LoRA from 5 to 2,000 adapters: throughput and first token (its published raw results). */
const COUNT_DROP_BAR = 0.055
const COUNT_TTFT_BAR_MS = 1400

/** Share of capacity offered where the recipe asks for a load below it. */
const OFFERED_SHARE = 0.8

export const BASE_TAX: Preset = {
  id: 'R1',
  name: 'base-tax',
  title: 'same load with adapters off, registered but idle, and on one adapter',
  bar: `idle costs at most ${percent(IDLE_TAX_BAR)} of output throughput`,
  run: async (bench) => {
    const load = ['--max-concurrency=8', '--arrival=closed', `--num-prompts=${bench.numPrompts(64)}`, ...bench.lengths(32, 128)]
    const withoutAdapters = bench.serverCommand === null ? null : stripAdapterFlags(bench.serverCommand)
    const off = withoutAdapters === null ? null : await bench.run('adapters off', [...load, ...onBase], withoutAdapters)
    const idle = await bench.run('adapters idle', [...load, ...onBase])
    const one = bench.adapters.length > 0 ? await bench.run('one adapter', [...load, ...onAdapters(1)]) : null
    const verdicts: Verdict[] = []
    if (off === null) verdicts.push(notJudged('idle tax: needs --start-server, to start the server without adapters too'))
    else {
      const tax = 1 - value(idle, 'output_throughput') / value(off, 'output_throughput')
      verdicts.push(judge(tax <= IDLE_TAX_BAR, `idle adapters cost ${percent(tax)} of output throughput`))
    }
    if (one !== null)
      verdicts.push(
        notJudged(`one adapter keeps ${percent(value(one, 'output_throughput') / value(idle, 'output_throughput'))} of base`),
      )
    return verdicts
  },
}

/** The command without the flags that register adapters; null when it has none. */
export function stripAdapterFlags(command: string): string | null {
  const stripped = command.replace(/\s--(?:adapter-dir|adapter|lora-modules|enable-lora)(?:[= ](?!--)\S+)?/g, '')
  return stripped === command ? null : stripped
}

export const PERCENT_OF_BASE: Preset = {
  id: 'R2',
  name: 'percent-of-base',
  title: 'base against 1, 4, 16 and 64 distinct adapters: Poisson, then closed loops at two lengths',
  bar: `output throughput at least ${percent(PERCENT_OF_BASE_BAR)} of base in every batch`,
  run: async (bench) => {
    const verdicts: Verdict[] = []
    const poisson = [
      '--arrival=poisson',
      '--request-rate=8',
      `--num-prompts=${bench.numPrompts(480)}`,
      ...bench.lengths(128, 128),
    ]
    await bench.run('Poisson 8 req/s, base', [...poisson, ...onBase])
    await bench.run('Poisson 8 req/s, adapters', [...poisson, ...onAdapters(Math.min(64, bench.adapters.length))])
    for (const [input, output] of [
      [128, 128],
      [1024, 256],
    ] as const) {
      for (const concurrency of [1, 16, 64, 128]) verdicts.push(...(await percentAt(bench, concurrency, input, output)))
    }
    return verdicts
  },
}

async function percentAt(bench: PresetBench, concurrency: number, input: number, output: number): Promise<readonly Verdict[]> {
  const numPrompts = bench.numPrompts(Math.max(16, concurrency * 2))
  const load = [
    `--max-concurrency=${concurrency}`,
    '--arrival=closed',
    `--num-prompts=${numPrompts}`,
    ...bench.lengths(input, output),
  ]
  const name = `${input}/${output} at ${concurrency}`
  const base = value(await bench.run(`${name}, base`, [...load, ...onBase]), 'output_throughput')
  const verdicts: Verdict[] = []
  for (const count of [1, 4, 16, 64].filter((adapters) => adapters <= Math.min(concurrency, bench.adapters.length))) {
    const result = await bench.run(`${name}, ${count} adapters`, [...load, ...onAdapters(count, 'round-robin')])
    const share = value(result, 'output_throughput') / base
    verdicts.push(judge(share >= PERCENT_OF_BASE_BAR, `${name}, ${count} distinct adapters: ${percent(share)} of base`))
  }
  return verdicts
}

export const ADAPTER_COUNT: Preset = {
  id: 'R3',
  name: 'adapter-count',
  title: "S-LoRA's generator (seed 42, lengths uniform in 8 to 511) at 80 % of the 5-adapter capacity, 1 to 2,000 adapters",
  bar: `throughput falls by at most ${percent(COUNT_DROP_BAR)} and TTFT grows by at most ${COUNT_TTFT_BAR_MS} ms from 5 adapters to the most`,
  run: async (bench) => {
    const lengths = sloraLengths(bench)
    const few = Math.min(5, bench.adapters.length)
    const rate = OFFERED_SHARE * (await measureCapacity(bench, [...lengths, ...onAdapters(few)]))
    const load = [
      '--arrival=gamma',
      '--cv=1',
      '--no-normalize-arrivals',
      '--seed=42',
      `--request-rate=${rate.toPrecision(4)}`,
      `--num-prompts=${bench.numPrompts(200)}`,
      ...lengths,
    ]
    const counts = [...new Set([1, 5, 100, 1000, 2000].map((count) => Math.min(count, bench.adapters.length)))]
    const results = []
    for (const count of counts) results.push(await bench.run(`${count} adapters`, [...load, ...onAdapters(count, 'power:1')]))
    const [from, to] = [results[counts.indexOf(few)], results.at(-1)]
    if (from === undefined || to === undefined || from === to)
      return [notJudged(`needs more than 5 adapters, the server lists ${bench.adapters.length}`)]
    const drop = 1 - value(to, 'request_throughput') / value(from, 'request_throughput')
    const growthMs = value(to, 'mean_ttft_ms') - value(from, 'mean_ttft_ms')
    return [
      judge(drop <= COUNT_DROP_BAR, `${few} to ${counts.at(-1)} adapters: throughput falls by ${percent(drop)}`),
      judge(growthMs <= COUNT_TTFT_BAR_MS, `${few} to ${counts.at(-1)} adapters: mean TTFT grows by ${growthMs.toFixed(0)} ms`),
    ]
  },
}

/** S-LoRA draws both lengths uniformly in [8, 512); scaled down where prompt and answer of 511 do not fit. */
function sloraLengths(bench: PresetBench): readonly string[] {
  const scale = Math.min(1, (bench.context.server.maxModelLen ?? Number.POSITIVE_INFINITY) / 1022)
  return ['--input-len=uniform:8:511', '--output-len=uniform:8:511', `--length-scale=${scale.toPrecision(4)}`]
}

export const MEMORY_PRESSURE: Preset = {
  id: 'R4',
  name: 'memory-pressure',
  title: 'every adapter in turn (400 of mixed rank in the recipe) beside long answers, at 80 % of capacity',
  bar: 'every request has its first token within 6 s, and nothing is refused',
  run: async (bench) => {
    const args = [...bench.lengths(512, 512), ...onAdapters(Math.min(400, bench.adapters.length), 'round-robin')]
    const rate = OFFERED_SHARE * (await measureCapacity(bench, args))
    const load = ['--arrival=poisson', `--request-rate=${rate.toPrecision(4)}`, `--num-prompts=${bench.numPrompts(200)}`]
    const result = await bench.run('all adapters', [...load, ...args])
    const { slora } = result.lorikeet.attainment
    return [
      judge(
        slora === 1,
        `${percent(slora)} of requests within 6 s, ${value(result, 'failed')} not completed, over ${bench.adapters.length} adapters`,
      ),
    ]
  },
}
