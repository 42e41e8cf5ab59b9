// `bench offline`: every request of the workload handed to the engine at once, as `vllm bench throughput`; no HTTP, no text.
import { summarize } from '../metrics/statistics.ts'
import type { BenchOptions } from '../options.ts'
import { planRequests } from '../workload/plan-requests.ts'
import { makePrompt } from '../workload/prompts.ts'
import { workloadOptions } from '../workload/workload-options.ts'
import { EngineSession } from './engine-session.ts'

/** Requests when none are asked for: a minute or so on two cores with the demo model. */
const DEFAULT_NUM_PROMPTS = 100

/** vLLM's keys of `bench throughput`, then ours. */
export interface OfflineResult {
  readonly elapsed_time: number
  readonly num_requests: number
  readonly total_num_tokens: number
  readonly requests_per_second: number
  readonly tokens_per_second: number
  readonly output_tokens_per_second: number
  readonly num_adapters: number
  readonly ttft_ms: ReturnType<typeof summarize>
  readonly backend: string
}

export async function runOffline(options: BenchOptions, serveArgs: readonly string[]): Promise<OfflineResult> {
  const session = await EngineSession.start(serveArgs)
  try {
    const server = session.serverInfo
    const asked = { ...options, 'num-prompts': options['num-prompts'] ?? DEFAULT_NUM_PROMPTS }
    const workload = await workloadOptions(asked, server, async (text) => Math.ceil(text.length / 4))
    const requests: { readonly prompt: Int32Array; readonly outputLen: number; readonly adapter: string | null }[] = []
    for await (const planned of planRequests({ ...workload, buildsBodies: false })) {
      const ids = makePrompt(workload.prompts, planned.index, planned.inputLen, planned.blockIds) as readonly number[]
      requests.push({ prompt: Int32Array.from(ids), outputLen: planned.outputLen, adapter: planned.adapter })
    }
    // Graphs are built for the first request of a kind: that is start-up, not throughput.
    const names = [null, ...workload.adapters]
    await Promise.all(names.map((name) => session.generate(Int32Array.from(server.tokenPool.slice(0, 4)), 2, name)))
    const startMs = performance.now()
    const finished = await Promise.all(
      requests.map(({ prompt, outputLen, adapter }) => session.generate(prompt, outputLen, adapter)),
    )
    const seconds = (performance.now() - startMs) / 1000
    const input = finished.reduce((sum, { metrics }) => sum + metrics.numPromptTokens, 0)
    const output = finished.reduce((sum, { metrics }) => sum + metrics.numOutputTokens, 0)
    const ttfts = finished.map(({ metrics }) => (metrics.firstTokenAtMs ?? metrics.finishedAtMs) - metrics.arrivedAtMs)
    return {
      elapsed_time: seconds,
      num_requests: requests.length,
      total_num_tokens: input + output,
      requests_per_second: requests.length / seconds,
      tokens_per_second: (input + output) / seconds,
      output_tokens_per_second: output / seconds,
      num_adapters: new Set(requests.map(({ adapter }) => adapter)).size,
      ttft_ms: summarize(Float64Array.from(ttfts), [50, 99]),
      backend: session.model.backend,
    }
  } finally {
    await session.close()
  }
}

export function formatOffline(result: OfflineResult): string {
  return [
    `${result.num_requests} requests in ${result.elapsed_time.toFixed(2)} s on ${result.backend}, ${result.num_adapters} models and adapters`,
    `throughput    ${result.requests_per_second.toFixed(2)} req/s   ${result.output_tokens_per_second.toFixed(1)} output tok/s   ${result.tokens_per_second.toFixed(1)} total tok/s`,
  ].join('\n')
}
