// The recent rate of a total, from the scrapes themselves: no timer runs for a gauge that few dashboards still ask for.

/** vLLM averages over the ten seconds between its log lines. */
const WINDOW_MS = 10_000

/** Scrapes closer than this add no sample, so that twenty a second keep a short list. */
const SAMPLE_INTERVAL_MS = 1000

interface Sample {
  readonly atMs: number
  readonly total: number
}

export class ThroughputWindow {
  readonly #samples: Sample[] = []

  /** Growth a second since the oldest sample in the window, or since the last scrape where that is longer ago. */
  rate(nowMs: number, total: number): number {
    const samples = this.#samples
    const last = samples.at(-1)
    // An engine that was restarted counts from zero.
    if (last !== undefined && total < last.total) samples.length = 0
    while (samples.length > 1 && nowMs - (samples[1] as Sample).atMs >= WINDOW_MS) samples.shift()
    const [oldest] = samples
    if (last === undefined || nowMs - last.atMs >= SAMPLE_INTERVAL_MS) samples.push({ atMs: nowMs, total })
    if (oldest === undefined || nowMs <= oldest.atMs) return 0
    return ((total - oldest.total) / (nowMs - oldest.atMs)) * 1000
  }
}
