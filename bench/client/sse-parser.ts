// Server-sent events from a stream of text chunks, as the WHATWG page says: LF, CRLF or CR line ends, several data lines an event.

const DATA = 'data:'

/** Feeds chunks in, calls back once per event with its data. Comments and other fields are skipped. */
export class SseParser {
  readonly #onData: (data: string) => void
  #rest = ''
  #data: string | null = null

  constructor(onData: (data: string) => void) {
    this.#onData = onData
  }

  push(chunk: string): void {
    const text = this.#rest + chunk
    let start = 0
    for (;;) {
      const end = text.indexOf('\n', start)
      if (end === -1) break
      const isCrLf = end > start && text.charCodeAt(end - 1) === 13
      this.#line(text.slice(start, isCrLf ? end - 1 : end))
      start = end + 1
    }
    this.#rest = start === 0 ? text : text.slice(start)
  }

  /** The last event may lack its blank line when the server closes at once. */
  end(): void {
    if (this.#rest !== '') this.#line(this.#rest)
    this.#rest = ''
    this.#line('')
  }

  #line(line: string): void {
    if (line === '') {
      const data = this.#data
      this.#data = null
      if (data !== null) this.#onData(data)
      return
    }
    if (!line.startsWith(DATA)) return
    const value = line.charCodeAt(DATA.length) === 32 ? line.slice(DATA.length + 1) : line.slice(DATA.length)
    this.#data = this.#data === null ? value : `${this.#data}\n${value}`
  }
}
