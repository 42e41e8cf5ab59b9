// Sends one request, reads its stream to the end and says what happened. Nothing here waits for another request.
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { RequestRecord } from '../metrics/request-record.ts'
import type { PlannedRequest } from '../workload/planned-request.ts'
import { SseParser } from './sse-parser.ts'
import { StreamMeasure } from './stream-measure.ts'
import { openRequest, type Target } from './target.ts'

export interface StreamOptions {
  readonly path: string
  readonly isChat: boolean
  readonly keepsText: boolean
  readonly timeoutMs: number
}

/** What the schedule knows of a request when it is sent; all in seconds from the start of the run. */
export interface SendTimes {
  readonly scheduledS: number
  readonly dispatchedS: number
}

/** How much of an error body is read: messages are short, an HTML page is not worth more. */
const MAX_ERROR_CHARS = 2048

/** Statuses by which a server says that it is full or not ready. */
const REJECTIONS: ReadonlySet<number> = new Set([429, 503])

/** Reads a monotonic clock in seconds from the start of the run. */
export type Clock = () => number

export interface StreamHooks {
  readonly now: Clock
  /** Messages with choices that just arrived. */
  readonly onMessages: (count: number) => void
  /** Called exactly once. */
  readonly onEnd: (record: RequestRecord) => void
}

export class StreamRequest {
  readonly planned: PlannedRequest
  readonly #target: Target
  readonly #options: StreamOptions
  readonly #times: SendTimes
  readonly #hooks: StreamHooks
  readonly #measure: StreamMeasure
  readonly #timer: NodeJS.Timeout
  #request: ClientRequest
  readonly #startS: number
  #status = 0
  #isAborted = false
  #isEnded = false

  /** Sends at once. */
  constructor(target: Target, planned: PlannedRequest, options: StreamOptions, times: SendTimes, hooks: StreamHooks) {
    this.planned = planned
    this.#target = target
    this.#options = options
    this.#times = times
    this.#hooks = hooks
    this.#measure = new StreamMeasure(options.isChat, options.keepsText)
    this.#timer = setTimeout(() => this.#fail(`no end within ${options.timeoutMs} ms`), options.timeoutMs)
    this.#startS = hooks.now()
    this.#request = this.#send()
  }

  /** Leaves as a client does that goes away; the record says `aborted`. */
  abort(): void {
    this.#isAborted = true
    this.#fail('the run ended')
  }

  #send(): ClientRequest {
    const body = Buffer.from(this.planned.body)
    const headers = { 'content-type': 'application/json', 'content-length': body.length, accept: 'text/event-stream' }
    const request = openRequest(this.#target, 'POST', this.#options.path, headers, (response) => this.#onResponse(response))
    request.on('error', (error: NodeJS.ErrnoException) => {
      // The server may close an idle connection just as it is reused: nothing was processed, so it is sent again.
      if (request.reusedSocket && error.code === 'ECONNRESET' && this.#status === 0 && !this.#isEnded) {
        this.#request = this.#send()
        return
      }
      this.#fail(error.message || (error.code ?? 'connection failed'))
    })
    request.end(body)
    return request
  }

  #onResponse(response: IncomingMessage): void {
    this.#status = response.statusCode ?? 0
    response.setEncoding('utf8')
    response.on('error', (error) => this.#fail(error.message))
    response.on('aborted', () => this.#fail('the server closed the connection'))
    if (this.#status !== 200) {
      let text = ''
      response.on('data', (chunk: string) => {
        if (text.length < MAX_ERROR_CHARS) text += chunk
      })
      response.on('end', () => this.#fail(errorText(text) || `status ${this.#status}`))
      return
    }
    let nowS = 0
    const parser = new SseParser((data) => this.#measure.onData(data, nowS - this.#startS))
    response.on('data', (chunk: string) => {
      nowS = this.#hooks.now()
      const before = this.#measure.numMessages
      parser.push(chunk)
      this.#hooks.onMessages(this.#measure.numMessages - before)
    })
    response.on('end', () => {
      nowS = this.#hooks.now()
      parser.end()
      this.#onStreamEnd()
    })
  }

  #onStreamEnd(): void {
    const measure = this.#measure
    if (measure.error !== null) this.#fail(measure.error)
    else if (measure.finishReason === 'abort') this.#end('aborted', 'the server aborted the request')
    else if (measure.ttftS === null) this.#fail('the stream ended without a token')
    else if (measure.finishReason === null && !measure.isDone) this.#fail('the stream ended early')
    else this.#end('success', null)
  }

  #fail(error: string): void {
    if (this.#isEnded) return
    const outcome = this.#isAborted ? 'aborted' : REJECTIONS.has(this.#status) ? 'rejected' : 'failed'
    this.#end(outcome, error)
    this.#request.destroy()
  }

  #end(outcome: RequestRecord['outcome'], error: string | null): void {
    if (this.#isEnded) return
    this.#isEnded = true
    clearTimeout(this.#timer)
    const measure = this.#measure
    this.#hooks.onEnd({
      index: this.planned.index,
      adapter: this.planned.adapter,
      outcome,
      ...this.#times,
      startS: this.#startS,
      ttftS: measure.ttftS,
      firstTextS: measure.firstTextS,
      itlsS: measure.itlsS,
      e2elS: outcome === 'success' ? measure.lastS : this.#hooks.now() - this.#startS,
      inputLen: measure.promptTokens ?? this.planned.inputLen,
      outputLen: measure.completionTokens ?? measure.numMessages,
      outputSource: measure.completionTokens === null ? 'messages' : 'usage',
      cachedTokens: measure.cachedTokens,
      finishReason: measure.finishReason,
      httpStatus: this.#status,
      error,
      text: this.#options.keepsText ? measure.text : null,
    })
  }
}

/** The message of an error body in any of the shapes servers use; the text itself when it is none of them. */
function errorText(body: string): string {
  try {
    const parsed = JSON.parse(body) as { error?: { message?: unknown } | string; message?: unknown }
    const message = typeof parsed.error === 'object' ? parsed.error.message : (parsed.error ?? parsed.message)
    if (typeof message === 'string') return message
  } catch {
    // Not JSON: the text is the message.
  }
  return body.slice(0, 200).trim()
}
