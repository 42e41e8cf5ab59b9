// The cases every engine bench measures: how many streams, and whether each brings an adapter of its own.

import { basename } from 'node:path'
import type { AdapterId } from '../src/core/ids.ts'
import { invariant } from '../src/core/invariant.ts'
import { type EngineRun, type EngineRunner, shareOutsideNative } from './engine-runner.ts'
import { decodeRate, median, totalRate } from './generation-run.ts'

/**
 * none: no adapter is registered. unused: adapters are registered and on the device, every request names the base.
 * distinct: every request names another adapter.
 */
export type AdapterUse = 'none' | 'unused' | 'distinct'

export interface EngineCase {
  readonly numStreams: number
  readonly adapters: AdapterUse
}

/** What one timed run of one case, of any engine, gives. */
export interface Sample {
  /** Output tokens a second, prefill included. */
  readonly totalRate: number
  /** Output tokens a second while all streams decode. */
  readonly decodeRate: number
  /** Share of the decode span outside native code; null for an engine that does not say. */
  readonly outsideNative: number | null
}

export const caseName = ({ numStreams, adapters }: EngineCase): string => `lorikeet ${numStreams} ${adapters}`

/** Loads and unloads a fixed list of adapters as the cases ask. */
export class AdapterRack {
  readonly #runner: EngineRunner
  readonly #paths: readonly string[]
  #ids: readonly AdapterId[] = []

  constructor(runner: EngineRunner, paths: readonly string[]) {
    this.#runner = runner
    this.#paths = paths
  }

  get ids(): readonly AdapterId[] {
    return this.#ids
  }

  async fill(): Promise<void> {
    if (this.#ids.length > 0) return
    const ids: AdapterId[] = []
    for (const path of this.#paths) ids.push(await this.#runner.loadAdapter(basename(path), path))
    this.#ids = ids
  }

  async empty(): Promise<void> {
    if (this.#ids.length === 0) return
    for (const path of this.#paths) await this.#runner.unloadAdapter(basename(path))
    this.#ids = []
  }
}

/** `prompts` has at least one prompt a stream. */
export async function runCase(
  runner: EngineRunner,
  rack: AdapterRack,
  one: EngineCase,
  prompts: readonly Int32Array[],
  numOutputTokens: number,
): Promise<EngineRun> {
  invariant(prompts.length >= one.numStreams, `${one.numStreams} streams, ${prompts.length} prompts`)
  if (one.adapters === 'none') await rack.empty()
  else await rack.fill()
  const adapters = prompts.map((_, index) => (one.adapters === 'distinct' ? (rack.ids[index] ?? null) : null))
  return runner.generate(prompts.slice(0, one.numStreams), numOutputTokens, adapters)
}

export function sampleOf(run: EngineRun): Sample {
  return { totalRate: totalRate(run), decodeRate: decodeRate(run), outsideNative: shareOutsideNative(run) }
}

/** Samples by case, one a round, so that ratios are taken within a round: drift of the machine then cancels. */
export class SampleTable {
  readonly #rows = new Map<string, Sample[]>()

  add(name: string, sample: Sample): void {
    const row = this.#rows.get(name)
    if (row === undefined) this.#rows.set(name, [sample])
    else row.push(sample)
  }

  medians(): Record<string, Sample & { readonly samples: readonly Sample[] }> {
    return Object.fromEntries(
      [...this.#rows].map(([name, samples]) => {
        const shares = samples.flatMap(({ outsideNative }) => outsideNative ?? [])
        return [
          name,
          {
            totalRate: median(samples.map((sample) => sample.totalRate)),
            decodeRate: median(samples.map((sample) => sample.decodeRate)),
            outsideNative: shares.length === 0 ? null : median(shares),
            samples,
          },
        ]
      }),
    )
  }

  /** Median over rounds of `above` / `below`. */
  ratio(above: string, below: string, field: 'totalRate' | 'decodeRate'): number {
    const over = this.#rows.get(above) ?? []
    const under = this.#rows.get(below) ?? []
    return median(under.flatMap((sample, round) => (over[round] === undefined ? [] : over[round][field] / sample[field])))
  }
}

/** Markdown for the terminal and for docs/numbers.md. */
export function formatMedians(medians: ReturnType<SampleTable['medians']>): string {
  const rows = Object.entries(medians).map(([name, { totalRate: total, decodeRate: decode, outsideNative }]) => {
    const share = outsideNative === null ? '' : `${(outsideNative * 100).toFixed(1)} %`
    return `| ${name} | ${total.toFixed(1)} | ${decode.toFixed(1)} | ${share} |`
  })
  const head = ['| case | tokens/s with prefill | tokens/s decode | outside native |', '| --- | --- | --- | --- |']
  return [...head, ...rows].join('\n')
}
