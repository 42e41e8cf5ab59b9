// The run second by second: what was sent, what came back, what was in flight. For charts, and to see a run drift.
import type { RequestRecord } from './request-record.ts'

/** What the server's own gauges said at one moment. */
export interface QueueSample {
  /** From the start of the run, seconds. */
  readonly timeS: number
  readonly numRunning: number
  readonly numWaiting: number
}

/** Columns of equal length; index = seconds from the start over `stepS`. */
export interface Timeline {
  readonly stepS: number
  readonly sent: readonly number[]
  readonly completed: readonly number[]
  /** Failures, rejections and aborts. */
  readonly notCompleted: readonly number[]
  /** Messages with tokens. */
  readonly outputTokens: readonly number[]
  /** At the end of the step. */
  readonly inFlight: readonly number[]
  readonly queue: readonly QueueSample[]
}

/** Enough steps for a smooth line, few enough for a small file. */
const MAX_STEPS = 600

/** A step is one second, or more in long runs. */
export function timeline(records: readonly RequestRecord[], durationS: number, queue: readonly QueueSample[]): Timeline {
  const stepS = Math.max(1, Math.ceil(durationS / MAX_STEPS))
  const numSteps = Math.max(1, Math.ceil(durationS / stepS))
  const column = (): number[] => new Array<number>(numSteps).fill(0)
  const add = (counts: number[], timeS: number): void => {
    const step = Math.min(Math.max(Math.floor(timeS / stepS), 0), numSteps - 1)
    counts[step] = (counts[step] as number) + 1
  }
  const [sent, completed, notCompleted, outputTokens] = [column(), column(), column(), column()]
  for (const record of records) {
    add(sent, record.startS)
    add(record.outcome === 'success' ? completed : notCompleted, record.startS + record.e2elS)
    if (record.ttftS === null) continue
    let timeS = record.startS + record.ttftS
    add(outputTokens, timeS)
    for (const gap of record.itlsS) {
      timeS += gap
      add(outputTokens, timeS)
    }
  }
  let flying = 0
  const inFlight = sent.map((count, step) => {
    flying += count - (completed[step] as number) - (notCompleted[step] as number)
    return flying
  })
  return { stepS, sent, completed, notCompleted, outputTokens, inFlight, queue }
}

/** Cumulative distribution of samples as [value, share] points: every sample, or `maxPoints` of them with the tail kept dense. */
export function cdf(samples: Float64Array, maxPoints: number): readonly (readonly [value: number, share: number])[] {
  const sorted = samples.slice().sort()
  const points: [number, number][] = []
  const count = Math.min(sorted.length, maxPoints)
  for (let point = 0; point < count; point += 1) {
    // Squared spacing from the top: half the points describe the last quarter, where services differ.
    const share = 1 - (1 - (point + 1) / count) ** 2
    const index = count === sorted.length ? point : Math.min(Math.floor(share * sorted.length), sorted.length - 1)
    points.push([sorted[index] as number, (index + 1) / sorted.length])
  }
  return points
}
