// A preset is a published recipe as a small program over a session: runs, then verdicts beside its pass bar.

import type { BenchResult } from '../metrics/bench-result.ts'
import type { ServeContext } from '../run-serve.ts'

export interface Verdict {
  /** null = could not be judged here; the text says why. */
  readonly passed: boolean | null
  readonly text: string
}

export interface PresetBench {
  readonly context: ServeContext
  /** Adapters there are to use, in the server's order. */
  readonly adapters: readonly string[]
  /** What the server was started with; null when it was not started here. */
  readonly serverCommand: string | null
  /** `--num-prompts`, else what the recipe suggests. */
  numPrompts(suggested: number): string
  /** `--resident-adapters`, else the suggestion, at most a quarter of the adapters. */
  slots(suggested: number): number
  /** Lengths of the recipe, multiplied down together until they fit the served context. */
  lengths(inputLen: number, outputLen: number): readonly string[]
  run(name: string, args: readonly string[], command?: string): Promise<BenchResult>
}

export interface Preset {
  /** The recipe's number. */
  readonly id: string
  readonly name: string
  readonly title: string
  readonly bar: string
  readonly run: (bench: PresetBench) => Promise<readonly Verdict[]>
}

export const value = (result: BenchResult, key: string): number => Number(result[key] ?? 0)

export const judge = (passed: boolean, text: string): Verdict => ({ passed, text })

export const notJudged = (text: string): Verdict => ({ passed: null, text })

export const percent = (share: number): string => `${(share * 100).toFixed(1)} %`

/** A run on the base model alone, on one adapter, or on so many. */
export const onBase: readonly string[] = ['--adapters=none']

export const onAdapters = (count: number, law = 'uniform'): readonly string[] => [
  `--num-adapters=${count}`,
  `--adapter-popularity=${law}`,
  '--base-share=0',
]

/** Requests in flight that fill a server of unknown size without queueing for minutes. */
const CAPACITY_CONCURRENCY = 16

/** Requests a second the server completes when it is kept busy: a closed loop, before an open-loop rate is chosen. */
export async function measureCapacity(bench: PresetBench, args: readonly string[]): Promise<number> {
  const load = [`--max-concurrency=${CAPACITY_CONCURRENCY}`, '--arrival=closed', `--num-prompts=${bench.numPrompts(64)}`]
  return value(await bench.run('capacity', [...load, ...args]), 'request_throughput')
}
