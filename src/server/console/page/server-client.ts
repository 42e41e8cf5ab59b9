// Every request the page makes of its server.

import type { GenerationRequest } from './generation-request.ts'
import { readEvents } from './read-events.ts'

/** An answer that is not a success, in the server's words. */
export class ServerError extends Error {
  /** HTTP status; 0 = the server could not be reached. */
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.name = 'ServerError'
    this.status = status
  }

  get isKeyRefused(): boolean {
    return this.status === 401
  }
}

export interface ModelCard {
  readonly id: string
  /** null = the base model. */
  readonly parent: string | null
}

/** What one chunk of a stream brings. */
export interface StreamChunk {
  readonly text: string
  /** Output tokens so far. */
  readonly numTokens: number
  readonly finishReason: string | null
}

interface ChunkBody {
  readonly choices?: readonly {
    readonly text?: string
    readonly delta?: { readonly content?: string | null }
    readonly finish_reason?: string | null
  }[]
  readonly usage?: { readonly completion_tokens?: number } | null
  readonly error?: { readonly message?: string }
}

export class ServerClient {
  readonly #apiKey: () => string | null

  constructor(apiKey: () => string | null) {
    this.#apiKey = apiKey
  }

  async models(): Promise<readonly ModelCard[]> {
    const { data } = (await (await this.#fetch('v1/models')).json()) as { data: readonly ModelCard[] }
    return data
  }

  async version(): Promise<string> {
    return ((await (await this.#fetch('version')).json()) as { version: string }).version
  }

  /** Throws while the server cannot answer requests. */
  async assertHealthy(): Promise<void> {
    await this.#fetch('health')
  }

  async metrics(): Promise<string> {
    return (await this.#fetch('metrics')).text()
  }

  /** Whether conversations can be turned into prompts. Costs no generation. */
  async hasChatTemplate(model: string): Promise<boolean> {
    try {
      await this.#fetch('tokenize', { body: { model, messages: [{ role: 'user', content: 'a' }] } })
      return true
    } catch (error) {
      if (error instanceof ServerError && error.status === 400) return false
      throw error
    }
  }

  /** Throws ServerError, or AbortError once `signal` is aborted. */
  async *stream({ path, body }: GenerationRequest, signal: AbortSignal): AsyncGenerator<StreamChunk> {
    const response = await this.#fetch(path, { body, signal })
    let isDone = false
    let numTokens = 0
    if (response.body === null) throw new ServerError(0, 'The answer is empty.')
    for await (const data of readEvents(response.body)) {
      if (data === '[DONE]') {
        isDone = true
        break
      }
      const { choices, usage, error } = JSON.parse(data) as ChunkBody
      if (error !== undefined) throw new ServerError(response.status, error.message ?? 'The server reported an error.')
      numTokens = usage?.completion_tokens ?? numTokens
      const choice = choices?.[0]
      const text = choice?.text ?? choice?.delta?.content ?? ''
      yield { text, numTokens, finishReason: choice?.finish_reason ?? null }
    }
    if (!isDone) throw new ServerError(0, 'The connection ended before the answer did.')
  }

  async #fetch(path: string, call: { readonly body?: object; readonly signal?: AbortSignal } = {}): Promise<Response> {
    const key = this.#apiKey()
    const headers = {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(call.body === undefined ? {} : { 'content-type': 'application/json' }),
    }
    const response = await fetch(path, {
      headers,
      cache: 'no-store',
      ...(call.body === undefined ? {} : { method: 'POST', body: JSON.stringify(call.body) }),
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    }).catch((error: unknown) => {
      if (call.signal?.aborted) throw error
      throw new ServerError(0, 'The server cannot be reached.')
    })
    if (!response.ok) throw await serverError(response)
    return response
  }
}

async function serverError(response: Response): Promise<ServerError> {
  const text = await response.text().catch(() => '')
  const { status } = response
  if (status === 401) return new ServerError(status, 'The server asks for an API key, or refused the one it was given.')
  try {
    const { error } = JSON.parse(text) as { error?: { message?: string } }
    if (error?.message !== undefined) return new ServerError(status, error.message)
  } catch {
    // A proxy's page, or nothing at all: the status has to do.
  }
  return new ServerError(status, `The server answered ${status}.`)
}
