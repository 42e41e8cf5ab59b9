// Azure LLM inference trace 2023 (Splitwise, ISCA'24): `TIMESTAMP,ContextTokens,GeneratedTokens`, one request a line.
import { type CsvRow, readCsv } from './csv-table.ts'
import { type TraceRecord, traceRecord } from './trace-record.ts'

const TIMESTAMP = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d+)?$/

interface Instant {
  /** Since the epoch. */
  readonly wholeS: number
  /** 0 to 1. */
  readonly fractionS: number
}

export async function* readAzureLlm(file: string): AsyncGenerator<TraceRecord> {
  let first: Instant | null = null
  for await (const row of readCsv(file, ['TIMESTAMP', 'ContextTokens', 'GeneratedTokens'])) {
    const instant = parseTimestamp(row)
    first ??= instant
    yield traceRecord({
      timeS: instant.wholeS - first.wholeS + (instant.fractionS - first.fractionS),
      inputLen: row.count('ContextTokens'),
      outputLen: row.count('GeneratedTokens'),
    })
  }
}

/** Whole and fraction apart: Date.parse keeps three of the seven digits, and a double since the epoch has no room for them. */
function parseTimestamp(row: CsvRow): Instant {
  const text = row.text('TIMESTAMP')
  const [, day, clock, fraction] = TIMESTAMP.exec(text) ?? []
  const wholeS = Date.parse(`${day}T${clock}Z`) / 1000
  if (!Number.isFinite(wholeS)) throw row.error('TIMESTAMP', `is not "YYYY-MM-DD HH:MM:SS.fffffff": "${text.slice(0, 40)}"`)
  return { wholeS, fractionS: fraction === undefined ? 0 : Number(fraction) }
}
