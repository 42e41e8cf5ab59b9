// Which adapter each request names: the laws of the papers and of the other load generators, one chooser each.
import { LorikeetError } from '../../src/errors.ts'
import { createRandom, drawIndex, type Random, shuffle } from '../random/random.ts'

/** One part of an inference-perf traffic split. */
export interface SplitShare {
  readonly name: string
  readonly split: number
}

export type PopularityLaw =
  | { readonly kind: 'uniform' }
  | { readonly kind: 'round-robin' }
  /** S-LoRA: index = floor(n * U), U ~ power(alpha), so P(i) = ((i+1)/n)^alpha - (i/n)^alpha. */
  | { readonly kind: 'power'; readonly alpha: number }
  /** SGLang's "skewed": P(i) proportional to base^-i. */
  | { readonly kind: 'geometric'; readonly base: number }
  /** P(i) proportional to (i+1)^-exponent. */
  | { readonly kind: 'zipf'; readonly exponent: number }
  | { readonly kind: 'punica-distinct' | 'punica-identical' | 'punica-uniform' | 'punica-skewed' }
  | { readonly kind: 'split'; readonly shares: readonly SplitShare[] }
  /** The trace's own key of each request, mapped to adapters in order of appearance. */
  | { readonly kind: 'trace' }

/** Reads `uniform`, `power:0.3`, `zipf:1.1`, `punica-skewed` ... A split comes from its file: `parseSplit`. */
export function parsePopularity(text: string): PopularityLaw {
  const [kind = '', parameter] = text.split(':')
  const value = Number(parameter)
  const bad = (reason: string): LorikeetError =>
    new LorikeetError('CONFIG_INVALID', { option: '--adapter-popularity', reason: `${text}: ${reason}` })
  switch (kind) {
    case 'uniform':
    case 'round-robin':
    case 'trace':
    case 'punica-distinct':
    case 'punica-identical':
    case 'punica-uniform':
    case 'punica-skewed':
      return { kind }
    case 'power':
      if (!(value > 0)) throw bad('power needs an exponent above 0, such as power:0.3')
      return { kind, alpha: value }
    case 'geometric':
      if (!(value > 1)) throw bad('geometric needs a base above 1, such as geometric:1.5')
      return { kind, base: value }
    case 'zipf':
      if (!(value >= 0)) throw bad('zipf needs an exponent of 0 or more, such as zipf:1')
      return { kind, exponent: value }
    default:
      throw bad(
        'the laws are uniform, round-robin, power:A, geometric:A, zipf:S, punica-distinct, punica-identical, punica-uniform, punica-skewed, split:FILE and trace',
      )
  }
}

/** A JSON list `[{"name": "a", "split": 0.12}, ...]`; shares are normalised to their sum. */
export function parseSplit(json: string, file: string): PopularityLaw {
  const bad = (reason: string): LorikeetError =>
    new LorikeetError('CONFIG_INVALID', { option: '--adapter-popularity', reason: `${file}: ${reason}` })
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    throw bad('is not JSON')
  }
  if (!Array.isArray(parsed) || parsed.length === 0) throw bad('must be a list of {"name", "split"}')
  const shares = parsed.map((part: unknown): SplitShare => {
    const { name, split } = (part ?? {}) as { name?: unknown; split?: unknown }
    if (typeof name !== 'string' || typeof split !== 'number' || !(split > 0)) {
      throw bad('each entry needs a name and a split above 0')
    }
    return { name, split }
  })
  return { kind: 'split', shares }
}

/** Probability of each of `count` indexes under a law that draws independently; null for the laws that count out. */
export function popularityWeights(law: PopularityLaw, count: number): Float64Array | null {
  const weights = new Float64Array(count)
  for (let index = 0; index < count; index += 1) {
    if (law.kind === 'uniform') weights[index] = 1
    else if (law.kind === 'zipf') weights[index] = (index + 1) ** -law.exponent
    else if (law.kind === 'geometric') weights[index] = law.base ** -index
    else if (law.kind === 'power') weights[index] = ((index + 1) / count) ** law.alpha - (index / count) ** law.alpha
    else if (law.kind === 'split') weights[index] = law.shares[index]?.split ?? 0
    else return null
  }
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

export interface AdapterChooserOptions {
  readonly law: PopularityLaw
  readonly adapters: readonly string[]
  readonly numRequests: number
  readonly seed: number
  /** Rank of popularity is not load order: the list is shuffled by the seed unless told otherwise. */
  readonly shuffle: boolean
}

/** Gives the adapter of each request in turn. `traceKey` is what the trace says of this request, if anything. */
export type AdapterChooser = (traceKey: string | null) => string

/** A chooser under the law. A split names its adapters itself; every other law ranks `adapters`. */
export function createAdapterChooser(options: AdapterChooserOptions): AdapterChooser {
  const { law, seed } = options
  const random = createRandom(seed, 'adapters')
  const names = law.kind === 'split' ? law.shares.map((share) => share.name) : [...options.adapters]
  if (names.length === 0) {
    throw new LorikeetError('CONFIG_INVALID', {
      option: '--adapters',
      reason: 'this popularity law needs at least one adapter',
    })
  }
  if (options.shuffle && law.kind !== 'split') shuffle(names, createRandom(seed, 'adapter-order'))
  const nameAt = (index: number): string => names[index % names.length] as string
  if (law.kind === 'trace') return traceChooser(nameAt)
  if (law.kind === 'round-robin' || law.kind === 'punica-distinct') return countingChooser(nameAt)
  const weights = popularityWeights(law, names.length)
  if (weights !== null) {
    const draw = weightedDraw(weights, random)
    return () => nameAt(draw())
  }
  return punicaChooser(law.kind as PunicaKind, options.numRequests, names.length, random, nameAt)
}

function traceChooser(nameAt: (index: number) => string): AdapterChooser {
  const indexOfKey = new Map<string, number>()
  return (traceKey) => {
    const key = traceKey ?? ''
    const index = indexOfKey.get(key) ?? indexOfKey.size
    indexOfKey.set(key, index)
    return nameAt(index)
  }
}

function countingChooser(nameAt: (index: number) => string): AdapterChooser {
  let index = 0
  return () => {
    index += 1
    return nameAt(index - 1)
  }
}

/** Draws an index by binary search in the cumulated weights. */
function weightedDraw(weights: Float64Array, random: Random): () => number {
  const cumulated = new Float64Array(weights.length)
  let sum = 0
  weights.forEach((weight, index) => {
    sum += weight
    cumulated[index] = sum
  })
  return () => {
    const target = random.next() * sum
    let low = 0
    let high = weights.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if ((cumulated[middle] as number) > target) high = middle
      else low = middle + 1
    }
    return low
  }
}

type PunicaKind = 'punica-identical' | 'punica-uniform' | 'punica-skewed'

/** Ratio between the sizes of neighbouring groups in Punica's skewed workload. */
const PUNICA_SKEW = 1.5

/** Punica counts requests out per adapter and shuffles their order (arXiv 2310.18547, section 7). */
export function punicaCounts(kind: PunicaKind, numRequests: number): number[] {
  if (kind === 'punica-identical') return [numRequests]
  if (kind === 'punica-uniform') {
    const groups = Math.ceil(Math.sqrt(numRequests))
    return Array.from(
      { length: groups },
      (_, group) => Math.floor(((group + 1) * numRequests) / groups) - Math.floor((group * numRequests) / groups),
    )
  }
  const counts: number[] = []
  let taken = 0
  for (let group = 0; ; group += 1) {
    const size = Math.floor(PUNICA_SKEW ** group)
    // What is left goes to one last group, however many that are.
    if (taken + size >= numRequests) return [...counts, numRequests - taken]
    counts.push(size)
    taken += size
  }
}

function punicaChooser(
  kind: PunicaKind,
  numRequests: number,
  numAdapters: number,
  random: Random,
  nameAt: (index: number) => string,
): AdapterChooser {
  const order: number[] = []
  punicaCounts(kind, numRequests).forEach((count, group) => {
    for (let taken = 0; taken < count; taken += 1) order.push(group % numAdapters)
  })
  shuffle(order, random)
  let next = 0
  return () => {
    const index = order[next] ?? drawIndex(random, numAdapters)
    next += 1
    return nameAt(index)
  }
}
