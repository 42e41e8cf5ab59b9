// Puts a run together: where lengths come from, when requests are sent, which adapter each names, what its prompt holds.
import { LorikeetError } from '../../src/errors.ts'
import { createRandom } from '../random/random.ts'
import { readTrace, type TraceFormat, type TraceView, viewTrace } from '../readers/read-trace.ts'
import { isKeptByVllm } from '../readers/sharegpt.ts'
import { type TraceRecord, traceRecord } from '../readers/trace-record.ts'
import { type ArrivalOptions, arrivals } from './arrivals.ts'
import { drawLength, type FittedLengths, fitLengths, type LengthLaw } from './lengths.ts'
import type { PlannedRequest } from './planned-request.ts'
import { type AdapterChooser, createAdapterChooser, type PopularityLaw } from './popularity.ts'
import { makePrompt, type PromptSource } from './prompts.ts'
import { sampleRecords } from './sample-records.ts'

export interface DatasetOptions {
  /** null = lengths from the laws alone. */
  readonly trace: { readonly format: TraceFormat; readonly file: string; readonly view: TraceView } | null
  /** Used where the trace has none. `force...` ignores the trace's own. */
  readonly inputLaw: LengthLaw
  readonly outputLaw: LengthLaw
  readonly forceInput: boolean
  readonly forceOutput: boolean
  /** Both lengths, and the trace's blocks, are multiplied by this: a long-context trace on a small model. */
  readonly lengthScale: number
  /** Total tokens a request may have; null = not known. */
  readonly maxModelLen: number | null
  /** The same for adapters that take part of the context. */
  readonly maxModelLenOf: Readonly<Record<string, number>>
  readonly minuteArrivals: 'uniform' | 'poisson'
  /** Share of the trace's requests that is kept, drawn by seed: keeps the shape of the load at a lower rate. */
  readonly thin: number
}

export interface Shard {
  readonly index: number
  readonly count: number
}

export const WHOLE: Shard = { index: 0, count: 1 }

export interface WorkloadOptions {
  readonly dataset: DatasetOptions
  readonly numRequests: number
  /** `trace` = as recorded; a rate then stretches the trace to that mean rate. */
  readonly arrival: ArrivalOptions | { readonly kind: 'trace'; readonly rate: number | null }
  readonly popularity: PopularityLaw
  readonly shuffleAdapters: boolean
  readonly adapters: readonly string[]
  /** Share of requests that name the base model instead of an adapter. */
  readonly baseShare: number
  readonly baseModel: string
  readonly prompts: PromptSource
  readonly isChat: boolean
  readonly sampling: Readonly<Record<string, unknown>>
  readonly seed: number
  /** With several client processes each plans the whole run and sends its own part: the requests whose index modulo `count` is `index`. */
  readonly shard: Shard
  /** False: only the plan is wanted, prompts are left out. */
  readonly buildsBodies: boolean
  /** Tokens of a text. */
  readonly countTokens: (text: string) => Promise<number>
}

/** Conversations held for each that is wanted: the filter drops some. */
const SHAREGPT_OVERSAMPLE = 4

/** Requests in the order they are sent. Equal options give equal requests, byte for byte. */
export async function* planRequests(options: WorkloadOptions): AsyncGenerator<PlannedRequest> {
  const { dataset, seed } = options
  const lengthRandom = createRandom(seed, 'lengths')
  const baseRandom = createRandom(seed, 'base-share')
  const choose: AdapterChooser | null =
    options.adapters.length > 0 || options.popularity.kind === 'split' ? chooser(options) : null
  const process = 'kind' in options.arrival ? null : arrivals(options.arrival)
  const stretch =
    'kind' in options.arrival && options.arrival.rate !== null ? await stretchToRate(options, options.arrival.rate) : 1
  let index = 0
  for await (const record of datasetRecords(options)) {
    const offset = process === null ? record.timeS : process.next().value
    if (offset === undefined || index >= options.numRequests) return
    if (offset === null) throw badArrival()
    const isBase = choose === null || baseRandom.next() < options.baseShare
    const adapter = isBase ? null : choose(record.key)
    const rawInput = (dataset.forceInput ? null : record.inputLen) ?? drawLength(dataset.inputLaw, lengthRandom)
    const rawOutput = (dataset.forceOutput ? null : record.outputLen) ?? drawLength(dataset.outputLaw, lengthRandom)
    const lengths = fitLengths(
      Math.max(1, Math.round(rawInput * dataset.lengthScale)),
      Math.max(1, Math.round(rawOutput * dataset.lengthScale)),
      contextOf(dataset, adapter),
    )
    const isOwn = index % options.shard.count === options.shard.index
    index += 1
    if (!isOwn) continue
    yield {
      index: index - 1,
      offsetS: offset * stretch,
      adapter,
      ...lengths,
      traceKey: record.key,
      blockIds: record.blockIds,
      body: options.buildsBodies ? requestBody(options, record, index - 1, adapter ?? options.baseModel, lengths) : '',
    }
  }
}

function contextOf(dataset: DatasetOptions, adapter: string | null): number {
  const whole = dataset.maxModelLen ?? Number.MAX_SAFE_INTEGER
  return adapter === null ? whole : Math.min(whole, dataset.maxModelLenOf[adapter] ?? whole)
}

function chooser(options: WorkloadOptions): AdapterChooser {
  return createAdapterChooser({
    law: options.popularity,
    adapters: options.adapters,
    numRequests: options.numRequests,
    seed: options.seed,
    shuffle: options.shuffleAdapters,
  })
}

function requestBody(
  options: WorkloadOptions,
  record: TraceRecord,
  index: number,
  model: string,
  lengths: FittedLengths,
): string {
  const prompt = record.text?.prompt ?? makePrompt(options.prompts, index, lengths.inputLen, record.blockIds)
  const common = { ...options.sampling, stream: true, stream_options: { include_usage: true } }
  if (!options.isChat) return JSON.stringify({ model, prompt, max_tokens: lengths.outputLen, ...common })
  const content = [{ type: 'text', text: prompt }]
  return JSON.stringify({ model, messages: [{ role: 'user', content }], max_completion_tokens: lengths.outputLen, ...common })
}

/** As many records as the run needs, or as the trace has in its window when it brings its own times. */
async function* datasetRecords(options: WorkloadOptions): AsyncGenerator<TraceRecord> {
  const { dataset, numRequests, seed } = options
  if (dataset.trace === null) {
    for (let index = 0; index < numRequests; index += 1) yield traceRecord({})
    return
  }
  if ('kind' in options.arrival) {
    yield* timedRecords(options)
    return
  }
  const { format } = dataset.trace
  const records = format === 'sharegpt' ? conversations(options) : timedRecords(options)
  yield* await sampleRecords(records, numRequests, seed)
}

async function* timedRecords(options: WorkloadOptions): AsyncGenerator<TraceRecord> {
  const { dataset, seed } = options
  if (dataset.trace === null) return
  const { format, file, view } = dataset.trace
  const reader = readTrace(format, file, { seed, minuteArrivals: dataset.minuteArrivals, sampleSize: 0 })
  const random = createRandom(seed, 'thin')
  for await (const record of viewTrace(reader, view)) {
    if (dataset.thin < 1 && random.next() >= dataset.thin) continue
    yield record
  }
}

/** Conversations with their token counts, those dropped that vLLM's benchmark drops. */
async function* conversations(options: WorkloadOptions): AsyncGenerator<TraceRecord> {
  const { dataset, numRequests, seed } = options
  if (dataset.trace === null) return
  const sampleSize = Math.max(numRequests * SHAREGPT_OVERSAMPLE, 1000)
  const reader = readTrace('sharegpt', dataset.trace.file, { seed, minuteArrivals: 'poisson', sampleSize })
  const count = options.countTokens
  let numKept = 0
  for await (const record of reader) {
    if (numKept >= numRequests || record.text === null) return
    const inputLen = await count(record.text.prompt)
    const outputLen = await count(record.text.answer)
    if (dataset.trace.view.filter === 'vllm' && !isKeptByVllm(inputLen, outputLen, dataset.forceOutput)) continue
    // A text cannot be clipped by tokens from here: what does not fit the context is left out.
    if (dataset.maxModelLen !== null && inputLen >= dataset.maxModelLen) continue
    numKept += 1
    yield { ...record, inputLen, outputLen }
  }
}

/** Reads the trace once to find its mean rate, and gives the factor on its times that makes it `rate`. */
async function stretchToRate(options: WorkloadOptions, rate: number): Promise<number> {
  let count = 0
  let lastS = 0
  for await (const { timeS } of timedRecords(options)) {
    if (count >= options.numRequests) break
    count += 1
    lastS = timeS ?? 0
  }
  return lastS > 0 ? count / rate / lastS : 1
}

function badArrival(): LorikeetError {
  return new LorikeetError('CONFIG_INVALID', {
    option: '--arrival',
    reason: 'this trace has lengths but no times: choose poisson, gamma, constant or closed',
  })
}
