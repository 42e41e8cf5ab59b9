// An OpenAI-compatible server that answers as scripted. Time is a virtual clock which the script moves, so that what a client
// measures over real sockets is known exactly.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One message of a scripted answer. */
export interface ScriptStep {
  /** Advance of the clock before the message, seconds. */
  readonly afterS: number
  /** Written as it is; `data: ...\n\n` is the caller's. */
  readonly write: string
}

export type Script =
  | { readonly kind: 'stream'; readonly steps: readonly ScriptStep[]; readonly end?: 'close' | 'destroy' | 'hang' }
  | { readonly kind: 'status'; readonly status: number; readonly body: string }
  | { readonly kind: 'drop' }

export interface SeenRequest {
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: Record<string, unknown>
}

/** `data:` lines of a completions answer: text chunks, the last with a finish reason, then usage, then the end mark. */
export function completionSteps(gapsS: readonly number[], usage: { prompt: number; completion: number } | null): ScriptStep[] {
  const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`
  const steps = gapsS.map((afterS, index) => ({
    afterS,
    write: event({ choices: [{ index: 0, text: `t${index}`, finish_reason: index === gapsS.length - 1 ? 'length' : null }] }),
  }))
  const tail =
    usage === null
      ? []
      : [
          {
            afterS: 0.5,
            write: event({
              choices: [],
              usage: {
                prompt_tokens: usage.prompt,
                completion_tokens: usage.completion,
                prompt_tokens_details: { cached_tokens: 3 },
              },
            }),
          },
        ]
  return [...steps, ...tail, { afterS: 0.25, write: 'data: [DONE]\n\n' }]
}

export class FakeLlmServer {
  /** Virtual now, seconds. */
  nowS = 0
  readonly seen: SeenRequest[] = []
  readonly #server: Server
  readonly #scriptOf: (request: SeenRequest, index: number) => Script
  readonly #adapters: readonly string[]
  /** Called after each write; a test that moves the clock waits here until the client has read it. */
  afterWrite: () => Promise<void> = async () => undefined

  constructor(scriptOf: (request: SeenRequest, index: number) => Script, adapters: readonly string[] = []) {
    this.#scriptOf = scriptOf
    this.#adapters = adapters
    this.#server = createServer((request, response) => void this.#serve(request, response))
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? ''
    let text = ''
    for await (const chunk of request.setEncoding('utf8')) text += chunk as string
    if (request.method === 'GET') return this.#serveGet(path, response)
    const seen = { path, headers: request.headers, body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>) }
    if (path === '/tokenize')
      return json(response, 200, { tokens: [1, ...Array.from({ length: 40 }, (_, id) => id + 100)], count: 41 })
    this.seen.push(seen)
    const script = this.#scriptOf(seen, this.seen.length - 1)
    if (script.kind === 'drop') request.socket.destroy()
    else if (script.kind === 'status')
      response.writeHead(script.status, { 'content-type': 'application/json' }).end(script.body)
    else await this.#stream(response, script)
  }

  #serveGet(path: string, response: ServerResponse): void {
    if (path === '/health') response.writeHead(200).end()
    else if (path === '/version') json(response, 200, { version: '9.9.9' })
    else if (path === '/v1/models') {
      const adapters = this.#adapters.map((id) => ({ id, parent: 'base' }))
      json(response, 200, { data: [{ id: 'base', parent: null, max_model_len: 512 }, ...adapters] })
    } else if (path === '/metrics') {
      response.writeHead(200).end('vllm:num_requests_running{engine="0"} 2.0\nvllm:num_requests_waiting{engine="0"} 5.0\n')
    } else json(response, 404, { error: { message: 'no such route' } })
  }

  async #stream(response: ServerResponse, script: Extract<Script, { kind: 'stream' }>): Promise<void> {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const { afterS, write } of script.steps) {
      this.nowS += afterS
      response.write(write)
      await this.afterWrite()
    }
    if (script.end === 'destroy') response.destroy()
    else if (script.end !== 'hang') response.end()
  }
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
