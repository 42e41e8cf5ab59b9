// One request of a trace, whatever file it came from.

export interface TraceRecord {
  /** Seconds since the first arrival of the trace; null when the file has lengths but no times. */
  readonly timeS: number | null
  /** Prompt tokens; null when only the text is known. */
  readonly inputLen: number | null
  /** Tokens of the answer; null when only the text is known. */
  readonly outputLen: number | null
  /** What maps to an adapter: a function, an application, a production client; null when the trace has no such key. */
  readonly key: string | null
  /** Ids of the prompt's blocks, leading first; equal ids are equal tokens (Mooncake). */
  readonly blockIds: readonly number[] | null
  /** Texts of the prompt and of the recorded answer, where the file has them. */
  readonly text: { readonly prompt: string; readonly answer: string } | null
}

/** A record with everything unknown but what is given. */
export function traceRecord(known: Partial<TraceRecord>): TraceRecord {
  return { timeS: null, inputLen: null, outputLen: null, key: null, blockIds: null, text: null, ...known }
}

/** Where a reader of a random law (arrivals inside a minute, ServeGen clients) takes its seed from. */
export interface ReaderOptions {
  readonly seed: number
  /** How arrivals counted by the minute spread inside it. */
  readonly minuteArrivals: 'uniform' | 'poisson'
  /** ShareGPT conversations kept for sampling, at most; bounds memory whatever the size of the file. */
  readonly sampleSize: number
}
