// Traces of one JSON object a line: Mooncake's conversation trace and this harness's own form.
import { readLines } from './csv-table.ts'
import { traceError } from './trace-error.ts'
import { type TraceRecord, traceRecord } from './trace-record.ts'

type Fields = Readonly<Record<string, unknown>>

async function* readObjects(file: string): AsyncGenerator<{ readonly fields: Fields; readonly line: number }> {
  for await (const { text, number } of readLines(file)) {
    if (text.trim() === '') continue
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch (error) {
      throw traceError(file, number, '(line)', `is not JSON: ${error instanceof Error ? error.message : error}`)
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
      throw traceError(file, number, '(line)', 'is not a JSON object')
    }
    yield { fields: parsed as Fields, line: number }
  }
}

function numberField(file: string, line: number, fields: Fields, name: string): number {
  const value = fields[name]
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) {
    throw traceError(file, line, name, `must be a number of 0 or more, got ${JSON.stringify(value)}`)
  }
  return value
}

function idsField(file: string, line: number, fields: Fields, name: string): readonly number[] {
  const value = fields[name]
  if (!Array.isArray(value) || value.some((id) => !Number.isSafeInteger(id))) {
    throw traceError(file, line, name, 'must be a list of whole numbers')
  }
  return value
}

/** Tokens per hash id in the published Mooncake traces. */
export const MOONCAKE_BLOCK_TOKENS = 512

/** Mooncake (arXiv 2407.00079): timestamp in milliseconds, lengths, and hash ids of 512-token blocks that requests share. */
export async function* readMooncake(file: string): AsyncGenerator<TraceRecord> {
  let firstMs: number | null = null
  for await (const { fields, line } of readObjects(file)) {
    const timeMs = numberField(file, line, fields, 'timestamp')
    firstMs ??= timeMs
    yield traceRecord({
      timeS: (timeMs - firstMs) / 1000,
      inputLen: numberField(file, line, fields, 'input_length'),
      outputLen: numberField(file, line, fields, 'output_length'),
      blockIds: idsField(file, line, fields, 'hash_ids'),
    })
  }
}

/** One line of the harness's own form: `{"t": seconds, "input": tokens, "output": tokens, "key"?: text, "blocks"?: ids}`. */
export function formatOwnTrace(record: TraceRecord): string {
  const { timeS, inputLen, outputLen, key, blockIds } = record
  return JSON.stringify({
    ...(timeS === null ? {} : { t: Number(timeS.toFixed(6)) }),
    ...(inputLen === null ? {} : { input: inputLen }),
    ...(outputLen === null ? {} : { output: outputLen }),
    ...(key === null ? {} : { key }),
    ...(blockIds === null ? {} : { blocks: blockIds }),
  })
}

/** Reads what `formatOwnTrace` writes. */
export async function* readOwnTrace(file: string): AsyncGenerator<TraceRecord> {
  for await (const { fields, line } of readObjects(file)) {
    const optional = (name: string): number | null => (name in fields ? numberField(file, line, fields, name) : null)
    const key = fields['key']
    if (key !== undefined && typeof key !== 'string') throw traceError(file, line, 'key', 'must be a text')
    yield traceRecord({
      timeS: optional('t'),
      inputLen: optional('input'),
      outputLen: optional('output'),
      key: key ?? null,
      blockIds: 'blocks' in fields ? idsField(file, line, fields, 'blocks') : null,
    })
  }
}
