// ShareGPT: the standard JSON `[{id, conversations: [{from, value}]}]`, and the table of its lengths by the Llama-2 tokenizer.
import { createRandom, drawIndex, shuffle } from '../random/random.ts'
import { readCsv } from './csv-table.ts'
import { readJsonArray } from './json-array.ts'
import { traceError } from './trace-error.ts'
import { type ReaderOptions, type TraceRecord, traceRecord } from './trace-record.ts'

/** vLLM's filter, in tokens: shorter turns say nothing about serving, longer ones were above the context of its first models. */
const MIN_TOKENS = 4
const MAX_PROMPT_TOKENS = 1024
const MAX_TOTAL_TOKENS = 2048

/** Whether vLLM's benchmark keeps a conversation; with an output length given from outside, the answer's own is not checked. */
export function isKeptByVllm(inputLen: number, outputLen: number, isOutputFixed = false): boolean {
  if (inputLen < MIN_TOKENS || inputLen > MAX_PROMPT_TOKENS) return false
  if (!isOutputFixed && outputLen < MIN_TOKENS) return false
  return inputLen + outputLen <= MAX_TOTAL_TOKENS
}

/**
 * First two turns of conversations that have them, in an order shuffled by the seed, as vLLM samples. The file is read
 * once and at most `sampleSize` conversations are held (Vitter's reservoir), so its size does not matter.
 */
export async function* readShareGpt(file: string, options: ReaderOptions): AsyncGenerator<TraceRecord> {
  const random = createRandom(options.seed, 'sharegpt')
  const reservoir: TraceRecord[] = []
  let numSeen = 0
  for await (const { value, line } of readJsonArray(file)) {
    const turns = turnsOf(file, line, value)
    const [prompt, answer] = turns
    if (prompt === undefined || answer === undefined) continue
    const record = traceRecord({ text: { prompt, answer } })
    numSeen += 1
    if (reservoir.length < options.sampleSize) reservoir.push(record)
    else {
      const place = drawIndex(random, numSeen)
      if (place < options.sampleSize) reservoir[place] = record
    }
  }
  yield* shuffle(reservoir, random)
}

function turnsOf(file: string, line: number, value: unknown): readonly string[] {
  const conversations = (value as { conversations?: unknown } | null)?.conversations
  // The published file holds a few entries under another name; vLLM skips what has fewer than two turns.
  if (conversations === undefined) return []
  if (!Array.isArray(conversations)) throw traceError(file, line, 'conversations', 'must be a list of turns')
  return conversations.slice(0, 2).map((turn: unknown) => {
    const text = (turn as { value?: unknown } | null)?.value
    if (typeof text !== 'string') throw traceError(file, line, 'conversations.value', 'must be a text')
    return text
  })
}

/** `num_prefill_tokens,num_decode_tokens,...`, in the order of the file. vLLM's filter is the caller's choice. */
export async function* readShareGptLengths(file: string): AsyncGenerator<TraceRecord> {
  for await (const row of readCsv(file, ['num_prefill_tokens', 'num_decode_tokens'])) {
    yield traceRecord({ inputLen: row.count('num_prefill_tokens'), outputLen: row.count('num_decode_tokens') })
  }
}
