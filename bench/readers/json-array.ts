// Splits one huge JSON array into its elements as the bytes arrive: ShareGPT files are hundreds of megabytes in a single array.
import { asTraceError, openFile } from './csv-table.ts'
import { traceError } from './trace-error.ts'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const NEWLINE = 0x0a
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d

/** An element larger than this is no conversation; the limit keeps a file that never closes its quote from filling memory. */
const MAX_ELEMENT_BYTES = 64 * 1024 * 1024

export interface JsonElement {
  readonly value: unknown
  /** Line the element begins on, from 1. */
  readonly line: number
}

/** Scans bytes, not text: every byte that matters is ASCII, and UTF-8 never uses those inside a character. */
class ArraySplitter {
  readonly #file: string
  #depth = 0
  #isInString = false
  #isEscaped = false
  #line = 1
  #elementLine = 1
  #parts: Buffer[] = []
  #numBytes = 0
  #hasBegun = false
  #hasEnded = false

  constructor(file: string) {
    this.#file = file
  }

  *push(chunk: Buffer): Generator<JsonElement> {
    let start = this.#depth === 0 ? -1 : 0
    for (let index = 0; index < chunk.length; index += 1) {
      const byte = chunk[index] as number
      if (byte === NEWLINE) this.#line += 1
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false
        else if (byte === BACKSLASH) this.#isEscaped = true
        else if (byte === QUOTE) this.#isInString = false
        continue
      }
      if (byte === QUOTE) this.#isInString = true
      else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
        if (this.#depth === 0) start = this.#begin(byte, index)
        else if (this.#depth === 1) this.#elementLine = this.#line
        this.#depth += 1
      } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) {
        this.#depth -= 1
        if (this.#depth === 0) {
          yield* this.#take(chunk.subarray(start, index))
          this.#hasEnded = true
          start = -1
        }
      } else if (byte === COMMA && this.#depth === 1) {
        yield* this.#take(chunk.subarray(start, index))
        start = index + 1
      }
    }
    if (start >= 0) this.#keep(chunk.subarray(start))
  }

  end(): void {
    if (!this.#hasEnded) throw traceError(this.#file, this.#line, '(array)', 'the file ends before its JSON array does')
  }

  #begin(byte: number, index: number): number {
    if (byte !== OPEN_BRACKET || this.#hasBegun) {
      throw traceError(this.#file, this.#line, '(array)', 'the file must be one JSON array of conversations')
    }
    this.#hasBegun = true
    return index + 1
  }

  #keep(part: Buffer): void {
    this.#parts.push(part)
    this.#numBytes += part.length
    if (this.#numBytes > MAX_ELEMENT_BYTES) {
      throw traceError(this.#file, this.#elementLine, '(element)', `is over ${MAX_ELEMENT_BYTES} bytes`)
    }
  }

  *#take(part: Buffer): Generator<JsonElement> {
    const text = Buffer.concat([...this.#parts, part])
      .toString('utf8')
      .trim()
    this.#parts = []
    this.#numBytes = 0
    if (text === '') return
    try {
      yield { value: JSON.parse(text), line: this.#elementLine }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw traceError(this.#file, this.#elementLine, '(element)', `is not JSON: ${reason}`)
    }
  }
}

/** Elements of the array that is the whole file, one at a time. */
export async function* readJsonArray(file: string): AsyncGenerator<JsonElement> {
  const splitter = new ArraySplitter(file)
  try {
    for await (const chunk of openFile(file)) yield* splitter.push(chunk as Buffer)
  } catch (error) {
    throw asTraceError(error, file, 1)
  }
  splitter.end()
}
