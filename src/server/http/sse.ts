// Server-sent events onto one response, aware of readers slower than the model.

import type { ServerResponse } from 'node:http'

export type HeaderValues = Readonly<Record<string, string | number | readonly string[] | undefined>>

export class EventStream {
  readonly #response: ServerResponse

  /** Sends the status line and headers at once. */
  constructor(response: ServerResponse, headers: HeaderValues) {
    this.#response = response
    for (const [name, value] of Object.entries(headers)) if (value !== undefined) response.setHeader(name, value)
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      connection: 'keep-alive',
      'x-accel-buffering': 'no',
    })
  }

  /** False while the reader is behind; what is written then piles up in memory. */
  get isWritable(): boolean {
    return !this.#response.writableNeedDrain && !this.#response.destroyed
  }

  /** Each entry is one line of JSON; one write for all of them. */
  send(events: readonly string[]): void {
    if (events.length === 0 || this.#response.destroyed) return
    this.#response.write(events.map((json) => `data: ${json}\n\n`).join(''))
  }

  onDrain(listener: () => void): void {
    this.#response.on('drain', listener)
  }

  /** Sends the last events in one write; OpenAI's dialects end with `[DONE]` as one more. */
  end(events: readonly string[]): void {
    this.#response.end(events.map((json) => `data: ${json}\n\n`).join(''))
  }
}
