// The open-loop client: sends every request at its time whatever the server does, and keeps what it saw.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { RequestRecord } from '../metrics/request-record.ts'
import type { PlannedRequest } from '../workload/planned-request.ts'
import { raisePriority } from './client-priority.ts'
import { Dispatcher } from './dispatcher.ts'
import { type StreamOptions, StreamRequest } from './stream-request.ts'
import { fetchText, type Target } from './target.ts'

/** How a run ended. */
export type Ending = 'completed' | 'interrupted' | 'server-died'

export interface LoadOptions {
  readonly target: Target
  readonly stream: StreamOptions
  /** Requests in flight at most; null = no cap. The wait for the cap is not counted in latency, as in vLLM. */
  readonly maxConcurrency: number | null
  /** Ends the run early: what is in flight is aborted and the report written. */
  readonly signal: AbortSignal
  /** Requests the schedule will give; null = known at its end only. */
  readonly numPlanned: number | null
  /** Start of the run on `performance.timeOrigin + performance.now()`, in ms; processes of one run share it. */
  readonly startEpochMs: number
}

/** Counters a progress display reads while the run goes on. */
export interface LoadProgress {
  numDispatched: number
  numInFlight: number
  numWaiting: number
  numFinished: number
  numSucceeded: number
  numMessages: number
  /** First-token times since the last display, seconds; the display empties it. */
  recentTtftsS: number[]
}

export interface LoadResult {
  readonly ending: Ending
  readonly records: readonly RequestRecord[]
  /** From the start to the end of the last request, seconds. */
  readonly durationS: number
  /** Requests the schedule still held when the run ended early, as far as their number is known. */
  readonly numNotSent: number
  readonly numClipped: number
  /** Percentiles of the client's own event-loop delay, ms. */
  readonly eventLoopDelayMs: { readonly mean: number; readonly p50: number; readonly p99: number; readonly max: number }
}

export function createProgress(): LoadProgress {
  return {
    numDispatched: 0,
    numInFlight: 0,
    numWaiting: 0,
    numFinished: 0,
    numSucceeded: 0,
    numMessages: 0,
    recentTtftsS: [],
  }
}

/** So many connection failures in a row, with no answer between, and the server's health is asked. */
const FAILURES_BEFORE_HEALTH_CHECK = 8

/** A dead server refuses at once; one that hangs this long is as good as dead. */
const HEALTH_TIMEOUT_MS = 2000

/** Bodies held ready under a cap on concurrency: without a bound a closed loop would build all of its prompts at once. */
const MAX_QUEUED = 1024

/** Sampling of the event-loop delay, ms; the histogram's values include it. */
const DELAY_RESOLUTION_MS = 1

/** Runs the schedule to its end, or until the signal or the server's death. */
export async function runLoad(
  schedule: AsyncIterator<PlannedRequest>,
  options: LoadOptions,
  progress: LoadProgress,
): Promise<LoadResult> {
  const run = new LoadRun(options, progress)
  const delay = monitorEventLoopDelay({ resolution: DELAY_RESOLUTION_MS })
  const restorePriority = raisePriority()
  delay.enable()
  let ending: Ending
  try {
    ending = await run.drive(schedule)
  } finally {
    delay.disable()
    restorePriority()
  }
  const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - DELAY_RESOLUTION_MS)
  return {
    ending,
    records: run.records.sort((a, b) => a.index - b.index),
    durationS: run.lastEndS,
    numNotSent: ending === 'completed' ? 0 : Math.max((options.numPlanned ?? 0) - run.records.length, run.numDropped),
    numClipped: run.numClipped,
    eventLoopDelayMs: {
      mean: ms(delay.mean),
      p50: ms(delay.percentile(50)),
      p99: ms(delay.percentile(99)),
      max: ms(delay.max),
    },
  }
}

class LoadRun {
  readonly records: RequestRecord[] = []
  lastEndS = 0
  numDropped = 0
  numClipped = 0
  readonly #options: LoadOptions
  readonly #progress: LoadProgress
  readonly #inFlight = new Set<StreamRequest>()
  readonly #queue: { readonly planned: PlannedRequest; readonly dispatchedS: number }[] = []
  #dispatcher: Dispatcher | null = null
  #isStopped = false
  #numFailuresInRow = 0
  #isCheckingHealth = false
  #hasServerDied = false
  #planningError: unknown = null
  #onIdle: () => void = () => undefined

  constructor(options: LoadOptions, progress: LoadProgress) {
    this.#options = options
    this.#progress = progress
  }

  /** Rejects with what planning threw, after what was sent has ended. */
  async drive(schedule: AsyncIterator<PlannedRequest>): Promise<Ending> {
    const { signal } = this.#options
    const interrupt = (): void => this.#stop()
    const idle = new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
    const dispatcher = new Dispatcher({
      schedule,
      now: this.#now,
      hasRoom: () => this.#queue.length < MAX_QUEUED,
      dispatch: (planned, dispatchedS) => this.#dispatch(planned, dispatchedS),
      onDone: (error) => {
        this.#planningError = error
        this.#settle()
      },
    })
    this.#dispatcher = dispatcher
    signal.addEventListener('abort', interrupt, { once: true })
    if (signal.aborted) interrupt()
    else dispatcher.pump()
    await idle
    signal.removeEventListener('abort', interrupt)
    if (this.#planningError !== null) throw this.#planningError
    if (this.#hasServerDied) return 'server-died'
    return signal.aborted ? 'interrupted' : 'completed'
  }

  #now = (): number => (performance.timeOrigin + performance.now() - this.#options.startEpochMs) / 1000

  #dispatch(planned: PlannedRequest, dispatchedS: number): void {
    if (planned.clipped) this.numClipped += 1
    this.#progress.numDispatched += 1
    this.#queue.push({ planned, dispatchedS })
    this.#sendQueued()
  }

  #sendQueued(): void {
    const cap = this.#options.maxConcurrency ?? Number.POSITIVE_INFINITY
    while (this.#inFlight.size < cap && !this.#isStopped) {
      const next = this.#queue.shift()
      if (next === undefined) break
      this.#send(next.planned, next.dispatchedS)
    }
    this.#publish()
  }

  #send(planned: PlannedRequest, dispatchedS: number): void {
    const { target, stream } = this.#options
    const request = new StreamRequest(
      target,
      planned,
      stream,
      { scheduledS: planned.offsetS, dispatchedS },
      {
        now: this.#now,
        onMessages: (count) => {
          this.#progress.numMessages += count
          this.#dispatcher?.pump()
        },
        onEnd: (record) => this.#onEnd(request, record),
      },
    )
    this.#inFlight.add(request)
  }

  #onEnd(request: StreamRequest, record: RequestRecord): void {
    this.#inFlight.delete(request)
    this.records.push(record)
    this.lastEndS = Math.max(this.lastEndS, this.#now())
    const progress = this.#progress
    progress.numFinished += 1
    if (record.outcome === 'success') {
      progress.numSucceeded += 1
      if (record.ttftS !== null) progress.recentTtftsS.push(record.ttftS)
    }
    this.#watchServer(record)
    this.#sendQueued()
    this.#dispatcher?.pump()
    this.#settle()
  }

  #publish(): void {
    this.#progress.numInFlight = this.#inFlight.size
    this.#progress.numWaiting = this.#queue.length
  }

  #settle(): void {
    if (this.#dispatcher?.isDone === true && this.#inFlight.size === 0 && this.#queue.length === 0) this.#onIdle()
  }

  /** A row of broken connections means the server is gone, unless its health route answers. */
  #watchServer(record: RequestRecord): void {
    const isBroken = record.outcome === 'failed' && record.ttftS === null && record.httpStatus === 0
    this.#numFailuresInRow = isBroken ? this.#numFailuresInRow + 1 : 0
    if (this.#numFailuresInRow < FAILURES_BEFORE_HEALTH_CHECK || this.#isCheckingHealth) return
    this.#isCheckingHealth = true
    void fetchText(this.#options.target, 'GET', '/health', undefined, HEALTH_TIMEOUT_MS).then(({ status }) => {
      this.#isCheckingHealth = false
      this.#numFailuresInRow = 0
      if (status !== 0 || this.#isStopped) return
      this.#hasServerDied = true
      this.#stop()
    })
  }

  #stop(): void {
    if (this.#isStopped) return
    this.#isStopped = true
    this.numDropped = this.#queue.length
    this.#queue.length = 0
    for (const request of [...this.#inFlight]) request.abort()
    this.#dispatcher?.stop()
    this.#settle()
  }
}
