import { createRandom, drawIndex, shuffle } from '../random/random.ts'
import type { TraceRecord } from '../readers/trace-record.ts'

/**
 * `count` records of a trace that has no times, drawn by seed as vLLM samples ShareGPT: without repetition while there are
 * enough, then repeating. Holds `count` records whatever the size of the trace (Vitter's reservoir).
 */
export async function sampleRecords(records: AsyncIterable<TraceRecord>, count: number, seed: number): Promise<TraceRecord[]> {
  const random = createRandom(seed, 'sample')
  const kept: TraceRecord[] = []
  let numSeen = 0
  for await (const record of records) {
    numSeen += 1
    if (kept.length < count) kept.push(record)
    else {
      const place = drawIndex(random, numSeen)
      if (place < count) kept[place] = record
    }
  }
  shuffle(kept, random)
  const numDistinct = kept.length
  while (numDistinct > 0 && kept.length < count) kept.push(kept[drawIndex(random, numDistinct)] as TraceRecord)
  return kept
}
