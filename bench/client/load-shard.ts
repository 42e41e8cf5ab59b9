import type { BenchOptions } from '../options.ts'
import { planRequests, type Shard } from '../workload/plan-requests.ts'
import type { PlannedRequest } from '../workload/planned-request.ts'
import { tokenCounter, workloadOptions } from '../workload/workload-options.ts'
import { type LoadProgress, type LoadResult, runLoad } from './run-load.ts'
import type { ServerInfo } from './server-info.ts'
import { createTarget } from './target.ts'

/** What a client process is told; plain data, it crosses process borders. */
export interface ShardJob {
  readonly options: BenchOptions
  readonly server: ServerInfo
  readonly shard: Shard
}

/** Sends what was prepared. @param startEpochMs on `performance.timeOrigin + performance.now()` */
export type SendLoad = (startEpochMs: number, signal: AbortSignal, progress: LoadProgress) => Promise<LoadResult>

/** Plans one process's part of the run up to its first request, so that the clock starts when everything is ready. */
export async function prepareShard(job: ShardJob): Promise<SendLoad> {
  const { options, server, shard } = job
  const target = createTarget(options['base-url'], options['api-key'])
  const workload = await workloadOptions(options, server, tokenCounter(target, server))
  const cap = options['max-concurrency']
  const isKnown = workload.numRequests < Number.MAX_SAFE_INTEGER
  const schedule = await primed(planRequests({ ...workload, shard }))
  const stream = {
    path: options.endpoint,
    isChat: workload.isChat,
    keepsText: options['save-detailed'],
    timeoutMs: options['request-timeout'] * 1000,
  }
  return async (startEpochMs, signal, progress) => {
    const maxConcurrency = cap === null ? null : partOf(cap, shard)
    const numPlanned = isKnown ? partOf(workload.numRequests, shard) : null
    try {
      return await runLoad(schedule, { target, stream, maxConcurrency, signal, startEpochMs, numPlanned }, progress)
    } finally {
      target.agent.destroy()
    }
  }
}

/** The same items, the first of them already computed: sampling a trace may take a while. */
async function primed(schedule: AsyncGenerator<PlannedRequest>): Promise<AsyncGenerator<PlannedRequest>> {
  const first = await schedule.next()
  return (async function* () {
    try {
      if (first.done !== true) yield first.value
      yield* schedule
    } finally {
      await schedule.return(undefined)
    }
  })()
}

/** The shard's part of a whole: parts differ by at most one and add up. */
export function partOf(whole: number, shard: Shard): number {
  return Math.floor((whole + shard.count - 1 - shard.index) / shard.count)
}
