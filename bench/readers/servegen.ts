// ServeGen (Alibaba, arXiv 2505.09999): production clients, each with a fitted arrival law and rate every ten minutes.
// The clients are the adapters of a multi-adapter server: bursty, skewed, with lengths of their own.
import { readFile } from 'node:fs/promises'
import { drawGamma, drawWeibull, gammaFunction } from '../random/distributions.ts'
import { createRandom, type Random } from '../random/random.ts'
import { asTraceError, readCsv } from './csv-table.ts'
import { MinHeap } from './min-heap.ts'
import { traceError } from './trace-error.ts'
import { type ReaderOptions, type TraceRecord, traceRecord } from './trace-record.ts'

interface Window {
  readonly startS: number
  readonly rateRps: number
  readonly pattern: 'Gamma' | 'Weibull'
  readonly shape: number
}

interface Quantiles {
  readonly q: readonly number[]
  readonly max: number
}

interface LengthTable {
  /** Percent points of every `q`. */
  readonly quantiles: readonly number[]
  /** By client, then by the second of the day a segment begins at. */
  readonly clients: Readonly<Record<string, Readonly<Record<string, { input_tokens: Quantiles; output_tokens: Quantiles }>>>>
}

/**
 * Requests of all clients in order of time; the key is the client. `file` is the `*_clients.csv`; lengths come from the
 * `*_lengths.json` beside it, when there is one. The file's scale column is not used: gaps are scaled to the stated rate,
 * so that a client sends what its window says whatever the fit lost.
 */
export async function* readServeGen(file: string, options: ReaderOptions): AsyncGenerator<TraceRecord> {
  const lengths = await readLengthTable(file)
  const next = new MinHeap<{ readonly timeS: number; readonly client: string; readonly rest: Generator<number> }>(
    (arrival) => arrival.timeS,
  )
  const advance = (client: string, rest: Generator<number>): void => {
    const step = rest.next()
    if (step.done !== true) next.push({ timeS: step.value, client, rest })
  }
  for (const [client, windows] of await readClients(file)) {
    advance(client, clientArrivals(windows, createRandom(options.seed, `servegen-arrivals-${client}`)))
  }
  const random = createRandom(options.seed, 'servegen-lengths')
  while (next.size > 0) {
    const { timeS, client, rest } = next.pop()
    yield traceRecord({ timeS, key: client, ...drawLengths(lengths, client, timeS, random) })
    advance(client, rest)
  }
}

async function readClients(file: string): Promise<ReadonlyMap<string, readonly Window[]>> {
  const clients = new Map<string, Window[]>()
  for await (const row of readCsv(file, ['client', 't_s', 'rate_rps', 'pattern', 'shape'])) {
    const pattern = row.text('pattern')
    const rateRps = row.number('rate_rps', 0)
    if (rateRps > 0 && pattern !== 'Gamma' && pattern !== 'Weibull') {
      throw row.error('pattern', `must be Gamma or Weibull, got "${pattern}"`)
    }
    const shape = row.number('shape', 0)
    if (rateRps > 0 && shape === 0) throw row.error('shape', 'must be above 0 where the rate is')
    const windows = clients.get(row.text('client')) ?? []
    windows.push({ startS: row.number('t_s', 0), rateRps, pattern: pattern === 'Gamma' ? 'Gamma' : 'Weibull', shape })
    clients.set(row.text('client'), windows)
  }
  return clients
}

/** Length of a window when a client has but one. */
const WINDOW_S = 600

/**
 * Arrivals of one client: a renewal process in operational time (the integral of the rate), so that gaps run on across
 * windows. It starts in equilibrium; restarting it in every window would add (cv² - 1) / 2 arrivals to each.
 */
function* clientArrivals(windows: readonly Window[], random: Random): Generator<number> {
  /** Expected arrivals until the next one. */
  let ahead: number | null = null
  for (const [index, window] of windows.entries()) {
    if (window.rateRps === 0) continue
    const endS = windows[index + 1]?.startS ?? window.startS + WINDOW_S
    ahead ??= random.next() * drawUnitGap(window, random, true)
    let timeS: number = window.startS + ahead / window.rateRps
    while (timeS < endS) {
      yield timeS
      timeS += drawUnitGap(window, random, false) / window.rateRps
    }
    ahead = (timeS - endS) * window.rateRps
  }
}

/** A gap of mean 1; `isLengthBiased` draws the gap that a random instant falls into, longer the burstier the law. */
function drawUnitGap(window: Window, random: Random, isLengthBiased: boolean): number {
  const { shape } = window
  if (window.pattern === 'Gamma') return drawGamma(random, isLengthBiased ? shape + 1 : shape, 1 / shape)
  const scale = 1 / gammaFunction(1 + 1 / shape)
  if (!isLengthBiased) return drawWeibull(random, shape, scale)
  return scale * drawGamma(random, 1 + 1 / shape, 1) ** (1 / shape)
}

async function readLengthTable(clientsFile: string): Promise<LengthTable | null> {
  const file = clientsFile.replace(/_clients\.csv$/, '_lengths.json')
  if (file === clientsFile) return null
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') return null
    throw asTraceError(error, file, 1)
  }
  const parsed = JSON.parse(text) as Partial<LengthTable>
  if (!Array.isArray(parsed.quantiles) || typeof parsed.clients !== 'object') {
    throw traceError(file, 1, 'quantiles', 'the file must hold "quantiles" and "clients"')
  }
  return parsed as LengthTable
}

type Lengths = { readonly inputLen: number; readonly outputLen: number }

/** Lengths of the segment of the day that is nearest to the time; nothing when the client has no table. */
function drawLengths(
  table: LengthTable | null,
  client: string,
  timeS: number,
  random: Random,
): Lengths | Record<string, never> {
  const segments = Object.entries(table?.clients[client] ?? {})
  if (table === null || segments.length === 0) return {}
  const [, nearest] = segments.reduce((best, segment) =>
    Math.abs(Number(segment[0]) - timeS) < Math.abs(Number(best[0]) - timeS) ? segment : best,
  )
  return {
    inputLen: drawQuantile(table.quantiles, nearest.input_tokens, random),
    outputLen: drawQuantile(table.quantiles, nearest.output_tokens, random),
  }
}

/** Inverse of the cumulative distribution, linear between the given quantiles, flat below the first. */
function drawQuantile(percents: readonly number[], { q, max }: Quantiles, random: Random): number {
  const percent = random.next() * 100
  const above = percents.findIndex((point) => point >= percent)
  if (above === 0) return Math.max(1, Math.round(q[0] ?? 1))
  const index = above === -1 ? percents.length : above
  const [low, high] = [percents[index - 1] ?? 0, percents[index] ?? 100]
  const [from, to] = [q[index - 1] ?? 1, q[index] ?? max]
  return Math.max(1, Math.round(from + ((to - from) * (percent - low)) / (high - low)))
}
