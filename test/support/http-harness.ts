// The HTTP server on a scripted engine and the demo tokenizer.

import { readFileSync } from 'node:fs'
import { pino } from 'pino'
import type { AdapterConfig, Config, MetricsConfig, ServerConfig } from '../../src/config.ts'
import type { EnginePort } from '../../src/server/generation/engine-port.ts'
import type { RequestTracer } from '../../src/server/generation/request-tracer.ts'
import { createServerContext } from '../../src/server/generation/server-context.ts'
import { HttpServer } from '../../src/server/http/http-server.ts'
import { ChatTemplate } from '../../src/tokenizer/chat-template.ts'
import { NO_GENERATION_DEFAULTS } from '../../src/tokenizer/generation-defaults.ts'
import type { TextModel } from '../../src/tokenizer/text-model.ts'
import { Tokenizer } from '../../src/tokenizer/tokenizer.ts'
import { FakeEngine, type FakeEngineOptions } from './fake-engine.ts'

const DEMO = new URL('../../demo/model/', import.meta.url)
const readJson = (file: string): unknown => JSON.parse(readFileSync(new URL(file, DEMO), 'utf8'))

export const CHAT_TEMPLATE =
  '{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}'

export function demoTokenizer(): Tokenizer {
  return new Tokenizer(readJson('tokenizer.json'), readJson('tokenizer_config.json'))
}

export function demoText(overrides: Partial<TextModel> = {}): TextModel {
  return {
    tokenizer: demoTokenizer(),
    chatTemplate: new ChatTemplate(CHAT_TEMPLATE, { bosToken: '<s>', eosToken: '</s>' }),
    eosTokenIds: [2],
    generationDefaults: NO_GENERATION_DEFAULTS,
    ...overrides,
  }
}

export interface HarnessOptions extends FakeEngineOptions {
  readonly engine?: EnginePort
  readonly text?: TextModel
  readonly server?: Partial<ServerConfig>
  readonly adapters?: Partial<AdapterConfig>
  readonly metrics?: Partial<MetricsConfig>
  readonly maxQueue?: number
  readonly servedNames?: readonly string[]
  readonly tracer?: RequestTracer
}

export interface LogLine {
  readonly level: number
  readonly msg: string
  readonly [field: string]: unknown
}

type Method = 'GET' | 'POST' | 'DELETE'

export interface Harness {
  readonly server: HttpServer
  /** The scripted engine; not the one in use when another was given. */
  readonly engine: FakeEngine
  readonly log: LogLine[]
  get(url: string, headers?: Record<string, string>): Promise<Answer>
  send(method: string, url: string, payload?: string, headers?: Record<string, string>): Promise<Answer>
  post(url: string, body: unknown, headers?: Record<string, string>): Promise<Answer>
  /** Events of a streamed answer, `[DONE]` left out. */
  stream(url: string, body: object): Promise<StreamAnswer>
  close(): Promise<void>
}

export interface Answer {
  readonly status: number
  readonly headers: Record<string, unknown>
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: tests walk answers by name
  readonly json: any
}

export interface StreamAnswer {
  readonly status: number
  readonly headers: Record<string, unknown>
  readonly isDone: boolean
  // biome-ignore lint/suspicious/noExplicitAny: tests walk answers by name
  readonly events: any[]
}

export function testConfig(options: Omit<HarnessOptions, 'engine' | 'text'> = {}): Config {
  return {
    model: {
      path: '/models/demo',
      servedNames: options.servedNames ?? ['demo', 'alias'],
      backend: 'null',
      dtype: 'auto',
      maxModelLen: null,
      numThreads: 0,
    },
    scheduler: {
      maxNumSeqs: 64,
      maxNumBatchedTokens: 512,
      blockSize: 16,
      kvCacheBytes: null,
      enablePrefixCaching: true,
      maxQueue: options.maxQueue ?? 100,
    },
    adapters: {
      adapters: [],
      adapterDir: null,
      allowedPathPrefixes: [],
      allowRuntimeUpdating: true,
      hostBytes: 1 << 30,
      deviceBytes: 1 << 30,
      ...options.adapters,
    },
    server: {
      host: '127.0.0.1',
      port: 0,
      uds: null,
      apiKeys: [],
      guardMetrics: false,
      errorStyle: 'vllm',
      bodyLimitBytes: 32 * 1024 * 1024,
      maxLogprobs: 20,
      chatTemplate: null,
      useGenerationConfig: true,
      returnTokensAsTokenIds: false,
      streamInterval: 1,
      drainTimeoutMs: 1000,
      ...options.server,
    },
    grpc: {
      port: null,
      isPortRequired: true,
      maxMessageBytes: 32 * 1024 * 1024,
      hasReflection: true,
      tls: null,
      maxConnectionAgeMs: null,
    },
    metrics: { maxAdapters: 4, hasLegacyNames: true, loraInfo: 'running', ...options.metrics },
    tracing: { endpoint: null },
    log: { level: 'info', format: 'json' },
  }
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const engine = new FakeEngine(options)
  const log: LogLine[] = []
  const logger = pino({ level: 'info' }, { write: (line: string) => log.push(JSON.parse(line)) })
  const context = createServerContext({
    config: testConfig(options),
    engine: options.engine ?? engine,
    text: options.text ?? demoText(),
    logger,
    version: '9.9.9',
    ...(options.tracer === undefined ? {} : { tracer: options.tracer }),
  })
  const server = await HttpServer.create(context)
  const inject = async (method: string, url: string, payload: string | undefined, headers: Record<string, string>) => {
    const response = await server.app.inject({
      method: method.toUpperCase() as Method,
      url,
      headers,
      ...(payload === undefined ? {} : { payload }),
    })
    return { status: response.statusCode, headers: response.headers, text: response.body }
  }
  const post = async (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> => {
    const payload = typeof body === 'string' ? body : JSON.stringify(body)
    return withJson(await inject('POST', url, payload, { 'content-type': 'application/json', ...headers }))
  }
  return {
    server,
    engine,
    log,
    send: async (method, url, payload, headers = {}) => withJson(await inject(method, url, payload, headers)),
    get: async (url, headers = {}) => withJson(await inject('GET', url, undefined, headers)),
    post,
    stream: async (url, body) => {
      const answer = await post(url, { ...body, stream: true })
      return { status: answer.status, headers: answer.headers, ...parseEvents(answer.text) }
    },
    close: () => server.close(0),
  }
}

function withJson(answer: { status: number; headers: Record<string, unknown>; text: string }): Answer {
  try {
    return { ...answer, json: JSON.parse(answer.text) }
  } catch {
    return { ...answer, json: null }
  }
}

/** Splits a server-sent stream strictly: every event is one `data:` line and a blank one. */
export function parseEvents(text: string): Pick<StreamAnswer, 'isDone' | 'events'> {
  const blocks = text.split('\n\n')
  const rest = blocks.pop()
  if (rest !== '') return { isDone: false, events: [] }
  const data = blocks.map((block) => {
    if (!block.startsWith('data: ') || block.includes('\n')) throw new Error(`not one data line: ${block}`)
    return block.slice('data: '.length)
  })
  const isDone = data.at(-1) === '[DONE]'
  return { isDone, events: (isDone ? data.slice(0, -1) : data).map((line) => JSON.parse(line)) }
}
