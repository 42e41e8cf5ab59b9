// One measured run against a server: learn about it, warm up, send the load, build the result.
import { prepareFleet } from './client/load-fleet.ts'
import { prepareShard } from './client/load-shard.ts'
import { chooseProgress, ProgressDisplay } from './client/progress-display.ts'
import { QueueScrape } from './client/queue-scrape.ts'
import { createProgress } from './client/run-load.ts'
import { readServerInfo, type ServerInfo, waitUntilReady } from './client/server-info.ts'
import { createTarget, type Target } from './client/target.ts'
import { warmUp } from './client/warm-up.ts'
import { type BenchResult, buildResult } from './metrics/bench-result.ts'
import type { BenchOptions } from './options.ts'
import { runFacts } from './setup-facts.ts'
import { WHOLE } from './workload/plan-requests.ts'
import { tokenCounter, workloadOptions } from './workload/workload-options.ts'

/** Time between the end of preparation and the first offset: client processes read the start over IPC. */
const START_DELAY_MS = 100

export interface ServeContext {
  readonly target: Target
  readonly server: ServerInfo
}

/** Waits for the server and asks what the run needs to know. */
export async function openServer(options: BenchOptions, signal: AbortSignal): Promise<ServeContext> {
  const target = createTarget(options['base-url'], options['api-key'])
  await waitUntilReady(target, options['ready-timeout'], signal)
  const server = await readServerInfo(target, {
    model: options.model,
    promptFormat: options['prompt-format'],
    isChat: options.endpoint.includes('chat'),
  })
  return { target, server }
}

/** Plans, warms up, runs and measures. Ends early when the signal is aborted; the result then says so. */
export async function runServe(options: BenchOptions, context: ServeContext, signal: AbortSignal): Promise<BenchResult> {
  const { target, server } = context
  const workload = await workloadOptions(options, server, tokenCounter(target, server))
  const warmedUp = await warmUp(options, target, workload)
  const isFleet = options['client-processes'] > 1
  const sendLoad = isFleet ? await prepareFleet(options, server) : await prepareShard({ options, server, shard: WHOLE })
  const progress = createProgress()
  const total = workload.numRequests === Number.MAX_SAFE_INTEGER ? null : workload.numRequests
  const display = new ProgressDisplay(() => progress, total, chooseProgress(options.progress))
  const startEpochMs = performance.timeOrigin + performance.now() + START_DELAY_MS
  const scrape = options.scrape ? new QueueScrape(target, startEpochMs) : null
  try {
    const load = await sendLoad(startEpochMs, signal, progress)
    return buildResult(load, scrape?.samples ?? [], runFacts(options, server, workload, warmedUp, load), new Date())
  } finally {
    display.stop()
    scrape?.stop()
  }
}
