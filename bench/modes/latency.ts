// `bench latency`: one batch of fixed shape again and again, as `vllm bench latency`; base first, then on adapters.
import { summarize } from '../metrics/statistics.ts'
import type { BenchOptions } from '../options.ts'
import { makePrompt } from '../workload/prompts.ts'
import { EngineSession } from './engine-session.ts'

/** vLLM's defaults of `bench latency`, with fewer repetitions: a laptop has no patience for thirty. */
const BATCH_SIZE = 8
const INPUT_LEN = 32
const OUTPUT_LEN = 128
const WARM_UPS = 2
const REPEATS = 10

const PERCENTS = [10, 25, 50, 75, 90, 99]

export interface LatencyCase {
  readonly name: string
  /** Seconds, vLLM's keys. */
  readonly avg_latency: number
  readonly latencies: readonly number[]
  readonly percentiles: Readonly<Record<string, number>>
}

export async function runLatency(options: BenchOptions, serveArgs: readonly string[]): Promise<readonly LatencyCase[]> {
  const session = await EngineSession.start(serveArgs)
  try {
    const { adapters, maxModelLen, tokenPool } = session.serverInfo
    const names = adapters.slice(0, options['num-adapters'] ?? adapters.length)
    const batch = options['max-concurrency'] ?? BATCH_SIZE
    const context = Math.min(maxModelLen ?? INPUT_LEN + OUTPUT_LEN, ...Object.values(session.serverInfo.maxModelLenOf))
    const inputLen = Math.min(Number(options['input-len'] ?? INPUT_LEN), context - 1)
    const outputLen = Math.min(Number(options['output-len'] ?? OUTPUT_LEN), context - inputLen)
    const source = { tokenPool, seed: options.seed, sharedPrefixLen: 0, numPrefixes: 1, blockTokens: 1 }
    let numPrompts = 0
    const once = async (models: readonly (string | null)[]): Promise<number> => {
      const prompts = Array.from({ length: batch }, () => {
        numPrompts += 1
        return Int32Array.from(makePrompt(source, numPrompts, inputLen, null) as readonly number[])
      })
      const startMs = performance.now()
      await Promise.all(
        prompts.map((prompt, index) => session.generate(prompt, outputLen, models[index % models.length] ?? null)),
      )
      return (performance.now() - startMs) / 1000
    }
    const measure = async (name: string, models: readonly (string | null)[]): Promise<LatencyCase> => {
      for (let turn = 0; turn < WARM_UPS; turn += 1) await once(models)
      const latencies: number[] = []
      for (let turn = 0; turn < (options['num-prompts'] ?? REPEATS); turn += 1) latencies.push(await once(models))
      const { mean, percentiles } = summarize(Float64Array.from(latencies), PERCENTS)
      return { name, avg_latency: mean, latencies, percentiles }
    }
    const shape = `batch ${batch}, ${inputLen} in, ${outputLen} out`
    const cases = [await measure(`base, ${shape}`, [null])]
    if (names.length > 0) cases.push(await measure(`one adapter, ${shape}`, names.slice(0, 1)))
    if (names.length > 1) cases.push(await measure(`${names.length} adapters in turn, ${shape}`, names))
    return cases
  } finally {
    await session.close()
  }
}

export function formatLatency(cases: readonly LatencyCase[]): string {
  const [base] = cases
  return cases
    .map(({ name, avg_latency: mean, percentiles }) => {
      const ratio = base === undefined || base.avg_latency === 0 ? 1 : mean / base.avg_latency
      return `${name.padEnd(48)} mean ${(mean * 1000).toFixed(1)} ms   p50 ${((percentiles['50'] ?? 0) * 1000).toFixed(1)}   p99 ${((percentiles['99'] ?? 0) * 1000).toFixed(1)}   ${ratio.toFixed(2)}x base`
    })
    .join('\n')
}
