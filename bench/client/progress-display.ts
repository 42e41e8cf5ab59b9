// The run while it runs: a bar with live rates on a terminal, one JSON line every few seconds otherwise. Both go to stderr.
import type { LoadProgress } from './run-load.ts'

export type ProgressMode = 'bar' | 'json' | 'none'

/** A terminal is redrawn often enough to look alive; logs are kept short. */
const BAR_INTERVAL_MS = 250
const JSON_INTERVAL_MS = 5000

const BAR_CELLS = 24

interface Snapshot {
  readonly timeMs: number
  readonly numFinished: number
  readonly numMessages: number
}

export class ProgressDisplay {
  readonly #read: () => LoadProgress
  readonly #total: number | null
  readonly #mode: ProgressMode
  readonly #startMs = performance.now()
  readonly #timer: NodeJS.Timeout | null
  #previous: Snapshot

  /** @param total requests of the run; null = known at its end only */
  constructor(read: () => LoadProgress, total: number | null, mode: ProgressMode) {
    this.#read = read
    this.#total = total
    this.#mode = mode
    this.#previous = { timeMs: this.#startMs, numFinished: 0, numMessages: 0 }
    const interval = mode === 'bar' ? BAR_INTERVAL_MS : JSON_INTERVAL_MS
    this.#timer = mode === 'none' ? null : setInterval(() => this.#draw(), interval)
    this.#timer?.unref()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    if (this.#mode === 'bar') process.stderr.write('\r\x1b[K')
  }

  #draw(): void {
    const progress = this.#read()
    const timeMs = performance.now()
    const seconds = Math.max((timeMs - this.#previous.timeMs) / 1000, 1e-3)
    const requestsPerS = (progress.numFinished - this.#previous.numFinished) / seconds
    const tokensPerS = (progress.numMessages - this.#previous.numMessages) / seconds
    const ttfts = progress.recentTtftsS.splice(0).sort((a, b) => a - b)
    const ttftMs = ttfts.length > 0 ? (ttfts[ttfts.length >> 1] ?? 0) * 1000 : null
    this.#previous = { timeMs, numFinished: progress.numFinished, numMessages: progress.numMessages }
    if (this.#mode === 'bar') this.#drawBar(progress, requestsPerS, tokensPerS, ttftMs)
    else this.#writeLine(progress, requestsPerS, tokensPerS, ttftMs)
  }

  #drawBar(progress: LoadProgress, requestsPerS: number, tokensPerS: number, ttftMs: number | null): void {
    const { numFinished, numInFlight, numWaiting, numSucceeded } = progress
    const share = this.#total === null ? 0 : numFinished / this.#total
    const filled = Math.round(share * BAR_CELLS)
    const bar = this.#total === null ? '' : `${'█'.repeat(filled)}${'░'.repeat(BAR_CELLS - filled)} `
    const failed = numFinished - numSucceeded
    const parts = [
      `${bar}${numFinished}${this.#total === null ? '' : `/${this.#total}`}`,
      `${requestsPerS.toFixed(1)} req/s`,
      `${tokensPerS.toFixed(0)} tok/s`,
      ttftMs === null ? '' : `TTFT ${ttftMs.toFixed(0)} ms`,
      `${numInFlight} in flight`,
      numWaiting > 0 ? `${numWaiting} wait` : '',
      failed > 0 ? `${failed} failed` : '',
    ]
    const line = parts.filter((part) => part !== '').join('  ')
    process.stderr.write(`\r\x1b[K${line.slice(0, (process.stderr.columns ?? 120) - 1)}`)
  }

  #writeLine(progress: LoadProgress, requestsPerS: number, tokensPerS: number, ttftMs: number | null): void {
    const round = (value: number): number => Math.round(value * 10) / 10
    const line = {
      event: 'progress',
      elapsed_s: round((performance.now() - this.#startMs) / 1000),
      finished: progress.numFinished,
      total: this.#total,
      in_flight: progress.numInFlight,
      waiting: progress.numWaiting,
      not_completed: progress.numFinished - progress.numSucceeded,
      requests_per_s: round(requestsPerS),
      output_tokens_per_s: round(tokensPerS),
      ttft_median_ms: ttftMs === null ? null : round(ttftMs),
    }
    process.stderr.write(`${JSON.stringify(line)}\n`)
  }
}

export function chooseProgress(asked: 'auto' | ProgressMode): ProgressMode {
  if (asked !== 'auto') return asked
  return process.stderr.isTTY ? 'bar' : 'json'
}
