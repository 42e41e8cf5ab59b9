import { formatBytes } from './byte-size.ts'

const BAR_COLUMNS = 30
/** Often enough to look alive, rare enough to cost nothing. */
const REDRAW_INTERVAL_MS = 100

/** The part of a terminal stream that a bar needs. */
export interface Screen {
  write(text: string): unknown
}

/** A bar that redraws one line; `clear` removes it. */
export class LoadingProgress {
  readonly #screen: Screen
  readonly #now: () => number
  #drawnAtMs = Number.NEGATIVE_INFINITY

  constructor(screen: Screen, now: () => number = Date.now) {
    this.#screen = screen
    this.#now = now
  }

  update(loadedBytes: number, totalBytes: number): void {
    const isLast = loadedBytes >= totalBytes
    if (!isLast && this.#now() - this.#drawnAtMs < REDRAW_INTERVAL_MS) return
    this.#drawnAtMs = this.#now()
    this.#screen.write(`\r\x1b[K${progressLine(loadedBytes, totalBytes)}`)
  }

  clear(): void {
    if (this.#drawnAtMs !== Number.NEGATIVE_INFINITY) this.#screen.write('\r\x1b[K')
    this.#drawnAtMs = Number.NEGATIVE_INFINITY
  }
}

export function progressLine(loadedBytes: number, totalBytes: number): string {
  const share = totalBytes === 0 ? 1 : Math.min(1, loadedBytes / totalBytes)
  const filled = Math.round(share * BAR_COLUMNS)
  const bar = '#'.repeat(filled) + '.'.repeat(BAR_COLUMNS - filled)
  return `loading weights [${bar}] ${Math.floor(share * 100)} % of ${formatBytes(totalBytes)}`
}
