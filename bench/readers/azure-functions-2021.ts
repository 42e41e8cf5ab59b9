// Azure Functions trace 2021 (Faster and Cheaper Serverless Computing on Harvested Resources, SOSP'21): `app,func,end_timestamp,duration`.
import { readCsv } from './csv-table.ts'
import { MinHeap } from './min-heap.ts'
import { type TraceRecord, traceRecord } from './trace-record.ts'

/**
 * Rows held back to put starts in order. The file is sorted by end, and start = end - duration: a long invocation is
 * listed late. What is later than this many rows is sent at the time of the row before it.
 */
const REORDER_ROWS = 65_536

interface Invocation {
  readonly startS: number
  readonly key: string
}

export async function* readAzureFunctions2021(file: string): AsyncGenerator<TraceRecord> {
  const held = new MinHeap<Invocation>((invocation) => invocation.startS)
  let firstS: number | null = null
  let lastS = 0
  const release = (invocation: Invocation): TraceRecord => {
    firstS ??= invocation.startS
    lastS = Math.max(lastS, invocation.startS - firstS)
    return traceRecord({ timeS: lastS, key: invocation.key })
  }
  for await (const row of readCsv(file, ['app', 'func', 'end_timestamp', 'duration'])) {
    const startS = row.number('end_timestamp', 0) - row.number('duration', 0)
    held.push({ startS, key: row.text('func') })
    if (held.size > REORDER_ROWS) yield release(held.pop())
  }
  while (held.size > 0) yield release(held.pop())
}
