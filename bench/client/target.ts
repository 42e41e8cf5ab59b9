// The server under test: one base URL, and the agent that gives every request in flight a connection of its own.
import { type Agent, type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { LorikeetError } from '../../src/errors.ts'

export interface Target {
  readonly url: URL
  readonly agent: Agent
  readonly headers: Readonly<Record<string, string>>
}

/** Idle connections are reused; two requests never share one at a time, so none waits behind another in the client. */
export function createTarget(baseUrl: string, apiKey: string | null): Target {
  let url: URL
  try {
    url = new URL(baseUrl)
  } catch {
    throw new LorikeetError('CONFIG_INVALID', { option: '--base-url', reason: `is not a URL: ${baseUrl}` })
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new LorikeetError('CONFIG_INVALID', { option: '--base-url', reason: 'must begin with http:// or https://' })
  }
  const options = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY, maxFreeSockets: 4096 }
  return {
    url,
    agent: url.protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options),
    headers: apiKey === null ? {} : { authorization: `Bearer ${apiKey}` },
  }
}

/** Opens a request; the caller ends it. */
export function openRequest(
  target: Target,
  method: string,
  path: string,
  headers: Readonly<Record<string, string | number>>,
  onResponse: (response: IncomingMessage) => void,
): ClientRequest {
  const { url, agent } = target
  const open = url.protocol === 'https:' ? httpsRequest : httpRequest
  const prefix = url.pathname.replace(/\/$/, '')
  return open(
    {
      method,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port || (url.protocol === 'https:' ? 443 : 80),
      path: prefix + path,
      agent,
      headers: { ...target.headers, ...headers },
    },
    onResponse,
  )
}

export interface PlainResponse {
  readonly status: number
  readonly body: string
}

/** A small request outside the measured load. Status 0 = no answer. */
export function fetchText(
  target: Target,
  method: string,
  path: string,
  body?: unknown,
  timeoutMs = 10_000,
): Promise<PlainResponse> {
  const payload = body === undefined ? null : JSON.stringify(body)
  const headers = payload === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }
  return new Promise((resolve) => {
    const request = openRequest(target, method, path, headers, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }))
      response.on('error', (error) => resolve({ status: 0, body: error.message }))
    })
    request.setTimeout(timeoutMs, () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)))
    request.on('error', (error) => resolve({ status: 0, body: error.message || String(error) }))
    request.end(payload ?? undefined)
  })
}

/** The body of a JSON answer, or null when the route answers otherwise. */
export async function fetchJson(target: Target, method: string, path: string, body?: unknown): Promise<unknown> {
  const { status, body: text } = await fetchText(target, method, path, body)
  if (status !== 200) return null
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
