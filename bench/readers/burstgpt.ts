// BurstGPT (Wang et al., arXiv 2401.17644): `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, seconds.
import { readCsv } from './csv-table.ts'
import { type TraceRecord, traceRecord } from './trace-record.ts'

/** As vLLM does: rows of GPT-4 that were answered. The key is the log type (conversation or API), when the file has it. */
export async function* readBurstGpt(file: string): AsyncGenerator<TraceRecord> {
  let firstS: number | null = null
  for await (const row of readCsv(file, ['Timestamp', 'Model', 'Request tokens', 'Response tokens'])) {
    if (row.text('Model') !== 'GPT-4' || row.count('Response tokens') === 0) continue
    const seconds = row.number('Timestamp', 0)
    firstS ??= seconds
    yield traceRecord({
      timeS: seconds - firstS,
      inputLen: row.count('Request tokens'),
      outputLen: row.count('Response tokens'),
      key: row.text('Log Type') || null,
    })
  }
}
