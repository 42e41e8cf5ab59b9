// R5 to R9: adapters that come and go, are unequally asked for, and differ in rank and kind.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fetchJson } from '../client/target.ts'
import type { BenchResult } from '../metrics/bench-result.ts'
import {
  judge,
  measureCapacity,
  notJudged,
  onAdapters,
  onBase,
  type Preset,
  type PresetBench,
  percent,
  type Verdict,
  value,
} from './preset.ts'

/** Noise of a tail percentile between two short runs of one setting. */
const UNCHANGED = 1.1

export const CHURN: Preset = {
  id: 'R5',
  name: 'churn',
  title: 'S slots and 4S adapters, all distinct and Zipf 1.5, against S adapters that stay',
  bar: 'gaps between tokens (p99) of bystanders as without churn; first token of churned requests shown cold and warm',
  run: async (bench) => {
    const slots = bench.slots(8)
    const many = Math.min(4 * slots, bench.adapters.length)
    if (many <= slots) return [notJudged(`needs more adapters than slots, the server lists ${bench.adapters.length}`)]
    const shape = bench.lengths(128, 64)
    const rate = 0.5 * (await measureCapacity(bench, [...shape, ...onAdapters(slots)]))
    const load = [
      '--arrival=poisson',
      `--request-rate=${rate.toPrecision(4)}`,
      `--num-prompts=${bench.numPrompts(160)}`,
      `--resident-adapters=${slots}`,
      ...shape,
    ]
    const still = await bench.run(`${slots} adapters, resident`, [...load, ...onAdapters(slots, 'round-robin')])
    const verdicts: Verdict[] = []
    for (const law of ['round-robin', 'zipf:1.5']) {
      const result = await bench.run(`${many} adapters, ${law}`, [...load, ...onAdapters(many, law), '--warmup=one'])
      const ratio = value(result, 'p99_itl_ms') / value(still, 'p99_itl_ms')
      const { cold, warm } = result.lorikeet.cold_warm
      verdicts.push(judge(ratio <= UNCHANGED, `${law}: bystanders' ITL p99 is ${ratio.toFixed(2)} times that without churn`))
      verdicts.push(
        notJudged(
          `${law}: TTFT p50 ${cold.median.toFixed(0)} ms cold (${cold.count}), ${warm.median.toFixed(0)} ms warm (${warm.count})`,
        ),
      )
    }
    return verdicts
  },
}

/** The Gateway API project's regression: five adapters with 12 % each, five with 6 %, five with 2 %. */
const GATEWAY_SHARES = [0.12, 0.06, 0.02]

/** The least asked-for group may wait this many times as long as all together before it counts as starved. */
const STARVED = 3

export const SKEW: Preset = {
  id: 'R6',
  name: 'skew',
  title: '15 adapters with 5 x 12 %, 5 x 6 % and 5 x 2 % of requests, at rising rates',
  bar: `no adapter starves: each completes, and none has a TTFT p50 above ${STARVED} times the run's p99`,
  run: async (bench) => {
    const names = bench.adapters.slice(0, 15)
    if (names.length < 3) return [notJudged(`needs 3 adapters or more, the server lists ${names.length}`)]
    const { mkdtemp, rm, writeFile } = await import('node:fs/promises')
    const { tmpdir } = await import('node:os')
    const folder = await mkdtemp(join(tmpdir(), 'lorikeet-skew-'))
    try {
      const file = join(folder, 'split.json')
      const split = names.map((name, index) => ({ name, split: GATEWAY_SHARES[Math.floor((index * 3) / names.length)] }))
      await writeFile(file, JSON.stringify(split))
      const args = [...bench.lengths(1024, 1024), `--adapter-popularity=split:${file}`]
      const capacity = await measureCapacity(bench, args)
      const verdicts: Verdict[] = []
      for (const share of [0.25, 0.5, 0.75, 1]) {
        const rate = (capacity * share).toPrecision(4)
        const load = ['--arrival=poisson', `--request-rate=${rate}`, `--num-prompts=${bench.numPrompts(150)}`]
        verdicts.push(starvation(await bench.run(`${share * 100} % of capacity`, [...load, ...args]), `${rate} req/s`))
      }
      return verdicts
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}

function starvation(result: BenchResult, name: string): Verdict {
  const limitMs = STARVED * value(result, 'p99_ttft_ms')
  const starved = result.lorikeet.by_adapter.filter(({ completed, ttft }) => completed === 0 || ttft.median > limitMs)
  const worst = Math.max(...result.lorikeet.by_adapter.map(({ ttft }) => ttft.median))
  return judge(
    starved.length === 0,
    `${name}: worst adapter's TTFT p50 ${worst.toFixed(0)} ms, ${starved.length} adapters starve`,
  )
}

/** Punica's published cost of distinct adapters (arXiv 2310.18547). */
const PUNICA_MS_PER_TOKEN = 2

export const POPULARITY: Preset = {
  id: 'R7',
  name: 'popularity',
  title: "Punica's text generation: batch of 32, lognormal prompts, distinct, uniform, skewed and identical adapters",
  bar: `distinct adapters cost at most ${PUNICA_MS_PER_TOKEN} ms a token over the base model`,
  run: async (bench) => {
    const scale = Math.min(1, (bench.context.server.maxModelLen ?? Number.POSITIVE_INFINITY) / 2048)
    const load = [
      '--max-concurrency=32',
      '--arrival=closed',
      `--num-prompts=${bench.numPrompts(128)}`,
      '--input-len=lognormal:0.8:-1:18:1024',
      '--output-len=uniform:1:1023',
      `--length-scale=${scale.toPrecision(4)}`,
    ]
    const base = await bench.run('base', [...load, ...onBase])
    const verdicts: Verdict[] = []
    for (const law of ['distinct', 'uniform', 'skewed', 'identical']) {
      const result = await bench.run(law, [...load, `--adapter-popularity=punica-${law}`])
      const costMs = value(result, 'mean_tpot_ms') - value(base, 'mean_tpot_ms')
      const text = `${law}: ${costMs.toFixed(2)} ms a token over base, over ${bench.adapters.length} adapters`
      verdicts.push(law === 'distinct' ? judge(costMs <= PUNICA_MS_PER_TOKEN, text) : notJudged(text))
    }
    return verdicts
  },
}

export const MIXED_RANKS: Preset = {
  id: 'R8',
  name: 'mixed-ranks',
  title: 'adapters of low rank alone, then in one batch with as many of high rank',
  bar: 'low-rank requests do not pay for the high rank of others (TPOT within 10 %)',
  run: async (bench) => {
    const ranked = (await readAdapterFacts(bench)).filter(({ rank }) => rank > 0)
    const byRank = groupBy(ranked, ({ rank }) => rank)
    const ranks = [...byRank.keys()].sort((a, b) => a - b)
    const [low, high] = [byRank.get(ranks[0] ?? -1) ?? [], byRank.get(ranks.at(-1) ?? -1) ?? []]
    if (ranks.length < 2) return [notJudged('needs adapters of two ranks whose adapter_config.json can be read from here')]
    const load = [
      '--max-concurrency=16',
      '--arrival=closed',
      `--num-prompts=${bench.numPrompts(96)}`,
      ...bench.lengths(128, 128),
    ]
    const count = Math.min(low.length, high.length)
    const [lowNames, highNames] = [low.slice(0, count), high.slice(0, count)].map((group) =>
      group.map(({ name }) => name).join(','),
    )
    const alone = await bench.run(`rank ${ranks[0]} alone`, [
      ...load,
      `--adapters=${lowNames}`,
      '--adapter-popularity=round-robin',
    ])
    const mixed = await bench.run('both ranks', [
      ...load,
      `--adapters=${lowNames},${highNames}`,
      '--adapter-popularity=round-robin',
    ])
    const names = new Set(low.slice(0, count).map(({ name }) => name))
    const ratio = meanTpot(mixed, names) / meanTpot(alone, names)
    return [
      judge(ratio <= UNCHANGED, `rank ${ranks[0]} takes ${ratio.toFixed(2)} times as long a token beside rank ${ranks.at(-1)}`),
    ]
  },
}

/** Mean TPOT of some adapters of a run, weighted by their requests. */
function meanTpot(result: BenchResult, names: ReadonlySet<string>): number {
  const chosen = result.lorikeet.by_adapter.filter(({ adapter }) => adapter !== null && names.has(adapter))
  const count = chosen.reduce((sum, { tpot }) => sum + tpot.count, 0)
  return chosen.reduce((sum, { tpot }) => sum + tpot.mean * tpot.count, 0) / Math.max(count, 1)
}

export const MIXED_KINDS: Preset = {
  id: 'R9',
  name: 'mixed-kinds',
  title: 'every kind of adapter alone, then all kinds in one batch',
  bar: 'the mixed batch keeps 90 % of the mean throughput of the same-kind batches (no public anchor)',
  run: async (bench) => {
    const byKind = groupBy(await readAdapterFacts(bench), ({ kind }) => kind)
    if (byKind.size < 2) return [notJudged('needs adapters of two kinds whose adapter_config.json can be read from here')]
    const load = [
      '--max-concurrency=16',
      '--arrival=closed',
      `--num-prompts=${bench.numPrompts(96)}`,
      ...bench.lengths(128, 128),
    ]
    const shares: number[] = []
    for (const [kind, adapters] of byKind) {
      const names = adapters.map(({ name }) => name).join(',')
      const result = await bench.run(`${kind} alone`, [...load, `--adapters=${names}`, '--adapter-popularity=round-robin'])
      shares.push(1 / value(result, 'output_throughput'))
    }
    const mixed = await bench.run('all kinds', [...load, ...onAdapters(bench.adapters.length, 'round-robin')])
    // Kinds take equal numbers of requests, so their times add up: the mean is the harmonic one.
    const mean = shares.length / shares.reduce((sum, share) => sum + share, 0)
    const share = value(mixed, 'output_throughput') / mean
    return [judge(share >= 0.9, `${byKind.size} kinds in one batch keep ${percent(share)} of the mean of single kinds`)]
  },
}

interface AdapterFacts {
  readonly name: string
  readonly kind: string
  readonly rank: number
}

/** Kind and rank from the directory that the model list names, when the harness runs beside the server. */
async function readAdapterFacts(bench: PresetBench): Promise<readonly AdapterFacts[]> {
  const list = (await fetchJson(bench.context.target, 'GET', '/v1/models')) as {
    data?: readonly { id?: unknown; root?: unknown }[]
  } | null
  const facts: AdapterFacts[] = []
  for (const { id, root } of list?.data ?? []) {
    if (typeof id !== 'string' || typeof root !== 'string' || !bench.adapters.includes(id)) continue
    const text = await readFile(join(root, 'adapter_config.json'), 'utf8').catch(() => null)
    if (text === null) continue
    const config = JSON.parse(text) as { peft_type?: unknown; r?: unknown; use_dora?: unknown }
    const kind = config.use_dora === true ? 'DORA' : String(config.peft_type ?? 'unknown')
    facts.push({ name: id, kind, rank: typeof config.r === 'number' ? config.r : 0 })
  }
  return facts
}

function groupBy<T, Key>(items: readonly T[], keyOf: (item: T) => Key): Map<Key, T[]> {
  const groups = new Map<Key, T[]>()
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item])
  return groups
}
