// One switch from the name of a trace format to its reader, and the transforms every trace can take: window, scale, rate.
import { LorikeetError } from '../../src/errors.ts'
import { readAzureFunctions2019 } from './azure-functions-2019.ts'
import { readAzureFunctions2021 } from './azure-functions-2021.ts'
import { readAzureLlm } from './azure-llm.ts'
import { readBurstGpt } from './burstgpt.ts'
import { readMooncake, readOwnTrace } from './json-lines.ts'
import { readServeGen } from './servegen.ts'
import { isKeptByVllm, readShareGpt, readShareGptLengths } from './sharegpt.ts'
import type { ReaderOptions, TraceRecord } from './trace-record.ts'

export const TRACE_FORMATS = [
  'sharegpt',
  'sharegpt-lengths',
  'azure-llm',
  'azure-functions-2019',
  'azure-functions-2021',
  'servegen',
  'mooncake',
  'burstgpt',
  'jsonl',
] as const

export type TraceFormat = (typeof TRACE_FORMATS)[number]

export function isTraceFormat(name: string): name is TraceFormat {
  return (TRACE_FORMATS as readonly string[]).includes(name)
}

/** Records of a file in order of time, or in the order of the file where it has no times. Memory does not grow with the file. */
export function readTrace(format: TraceFormat, file: string, options: ReaderOptions): AsyncGenerator<TraceRecord> {
  switch (format) {
    case 'sharegpt':
      return readShareGpt(file, options)
    case 'sharegpt-lengths':
      return readShareGptLengths(file)
    case 'azure-llm':
      return readAzureLlm(file)
    case 'azure-functions-2019':
      return readAzureFunctions2019(file, options)
    case 'azure-functions-2021':
      return readAzureFunctions2021(file)
    case 'servegen':
      return readServeGen(file, options)
    case 'mooncake':
      return readMooncake(file)
    case 'burstgpt':
      return readBurstGpt(file)
    case 'jsonl':
      return readOwnTrace(file)
  }
}

/** The part of a trace that is replayed, and how fast. */
export interface TraceView {
  /** Seconds of the trace, before scaling. */
  readonly windowStartS: number
  readonly windowEndS: number
  /** 20 replays twenty seconds of the trace in one. */
  readonly timeScale: number
  /** Records kept at most. */
  readonly maxRecords: number
  /** ShareGPT only: drop what vLLM's benchmark drops. */
  readonly filter: 'vllm' | 'none'
}

/** The view's records; times start at 0 with the window. */
export async function* viewTrace(records: AsyncIterable<TraceRecord>, view: TraceView): AsyncGenerator<TraceRecord> {
  let numKept = 0
  for await (const record of records) {
    if (numKept >= view.maxRecords) return
    const { timeS, inputLen, outputLen } = record
    if (timeS !== null && timeS >= view.windowEndS) return
    if (timeS !== null && timeS < view.windowStartS) continue
    if (view.filter === 'vllm' && inputLen !== null && outputLen !== null && !isKeptByVllm(inputLen, outputLen)) continue
    numKept += 1
    yield timeS === null ? record : { ...record, timeS: (timeS - view.windowStartS) / view.timeScale }
  }
}

/** Parses `START:END` in seconds; either side may be empty. */
export function parseWindow(text: string): { readonly windowStartS: number; readonly windowEndS: number } {
  const [start = '', end = '', ...more] = text.split(':')
  const windowStartS = start === '' ? 0 : Number(start)
  const windowEndS = end === '' ? Number.POSITIVE_INFINITY : Number(end)
  if (more.length > 0 || !(windowStartS >= 0) || !(windowEndS > windowStartS)) {
    throw new LorikeetError('CONFIG_INVALID', { option: '--window', reason: `${text}: use START:END in seconds of the trace` })
  }
  return { windowStartS, windowEndS }
}
