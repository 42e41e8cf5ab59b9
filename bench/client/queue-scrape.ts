import type { QueueSample } from '../metrics/timeline.ts'
import { readQueue } from './server-info.ts'
import type { Target } from './target.ts'

const SCRAPE_INTERVAL_MS = 1000

/** Reads the server's queue gauges once a second beside the run. */
export class QueueScrape {
  readonly samples: QueueSample[] = []
  readonly #timer: NodeJS.Timeout

  constructor(target: Target, startEpochMs: number) {
    this.#timer = setInterval(() => {
      const timeS = (performance.timeOrigin + performance.now() - startEpochMs) / 1000
      void readQueue(target).then((queue) => {
        if (queue === null) this.stop()
        else this.samples.push({ timeS, ...queue })
      })
    }, SCRAPE_INTERVAL_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
