// /openapi.json, generated from the tables that validate, so that the two cannot differ.

import type { JsonObject } from '../../core/json.ts'
import { CHAT_FIELDS } from '../request/chat-fields.ts'
import { COMPLETION_FIELDS } from '../request/completion-fields.ts'
import { type FieldTable, tableSchema } from '../request/fields.ts'
import { LORAX_COMPATIBLE_FIELDS, LORAX_FIELDS } from '../request/lorax-fields.ts'
import { DETOKENIZE_FIELDS, TOKENIZE_FIELDS } from '../request/tokenize-call.ts'
import { LOAD_ADAPTER_FIELDS, UNLOAD_ADAPTER_FIELDS } from './routes/adapters.ts'
import { INVOCATION_FIELDS, SAGEMAKER_ADAPTER_FIELDS } from './routes/sagemaker.ts'

export interface RouteDoc {
  readonly method: 'get' | 'post' | 'delete'
  readonly path: string
  readonly summary: string
  readonly body: FieldTable | null
  readonly contentType: 'application/json' | 'text/plain' | 'text/html'
  /** Mounted only when adapters may be loaded at run time. */
  readonly isRuntimeUpdate: boolean
  /** Dialects that its errors may be told in. */
  readonly errors: readonly ErrorDialect[]
}

type ErrorDialect = 'Error' | 'LoraxError'

const get = (path: string, summary: string, contentType: RouteDoc['contentType'] = 'application/json'): RouteDoc => {
  return { method: 'get', path, summary, body: null, contentType, isRuntimeUpdate: false, errors: ['Error'] }
}
const post = (path: string, summary: string, body: FieldTable): RouteDoc => {
  return { method: 'post', path, summary, body, contentType: 'application/json', isRuntimeUpdate: false, errors: ['Error'] }
}

const inLorax = (route: RouteDoc): RouteDoc => ({ ...route, errors: ['LoraxError'] })
const inEither = (route: RouteDoc): RouteDoc => ({ ...route, errors: ['Error', 'LoraxError'] })

/** Every route, once: for the document, and for telling 405 from 404. */
export const ROUTES: readonly RouteDoc[] = [
  post('/v1/completions', 'Continue a prompt', COMPLETION_FIELDS),
  post('/v1/chat/completions', 'Answer a conversation', CHAT_FIELDS),
  get('/v1/models', 'The base model and its adapters'),
  get('/v1/models/{id}', 'One model or adapter'),
  {
    ...post('/v1/load_lora_adapter', 'Load an adapter from disk', LOAD_ADAPTER_FIELDS),
    contentType: 'text/plain',
    isRuntimeUpdate: true,
  },
  {
    ...post('/v1/unload_lora_adapter', 'Unload an adapter', UNLOAD_ADAPTER_FIELDS),
    contentType: 'text/plain',
    isRuntimeUpdate: true,
  },
  inLorax(post('/generate', 'LoRAX: continue a text', LORAX_FIELDS)),
  inLorax(post('/generate_stream', 'LoRAX: continue a text, streamed', LORAX_FIELDS)),
  inLorax(post('/', 'LoRAX: either, by `stream`', LORAX_COMPATIBLE_FIELDS)),
  inLorax(get('/info', 'LoRAX: model and limits')),
  inLorax(get('/startup', 'LoRAX: the same as /health', 'text/plain')),
  inEither(post('/invocations', 'SageMaker: a body of any of these dialects', INVOCATION_FIELDS)),
  {
    ...post('/adapters', 'SageMaker: load an adapter', SAGEMAKER_ADAPTER_FIELDS),
    contentType: 'text/plain',
    isRuntimeUpdate: true,
  },
  {
    ...get('/adapters/{id}', 'SageMaker: unload an adapter', 'text/plain'),
    method: 'delete',
    isRuntimeUpdate: true,
  },
  inEither(post('/tokenize', 'Text or messages to token ids; LoRAX: `inputs` to tokens', TOKENIZE_FIELDS)),
  post('/detokenize', 'Token ids to text', DETOKENIZE_FIELDS),
  get('/health', 'Ready to answer', 'text/plain'),
  get('/ping', 'The same as /health', 'text/plain'),
  { ...get('/ping', 'The same as /health', 'text/plain'), method: 'post' },
  get('/version', 'Version of this server'),
  get('/load', 'Requests in flight'),
  get('/metrics', 'Prometheus metrics', 'text/plain'),
  get('/', 'The console, a web page', 'text/html'),
  get('/openapi.json', 'This document'),
]

const ERROR_SCHEMA = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: {
        message: { type: 'string' },
        type: { type: 'string' },
        param: { type: ['string', 'null'] },
        code: { type: ['integer', 'string', 'null'] },
      },
    },
  },
}

const LORAX_ERROR_SCHEMA = {
  type: 'object',
  required: ['error', 'error_type'],
  properties: { error: { type: 'string' }, error_type: { type: 'string' } },
}

/** OpenAPI 3.1. */
export function openApiDocument(version: string, routes: readonly RouteDoc[]): JsonObject {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    const operations = paths[route.path] ?? {}
    operations[route.method] = operation(route)
    paths[route.path] = operations
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Lorikeet', version, description: 'One base model, any number of adapters: name one as `model`.' },
    paths,
    components: {
      schemas: { Error: ERROR_SCHEMA, LoraxError: LORAX_ERROR_SCHEMA },
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
    },
  }
}

function operation({ path, summary, body, contentType, errors }: RouteDoc): JsonObject {
  const references = errors.map((name) => ({ $ref: `#/components/schemas/${name}` }))
  const schema = references.length === 1 ? references[0] : { anyOf: references }
  const error = { description: 'Error', content: { 'application/json': { schema } } }
  const success = { description: 'Success', content: { [contentType]: { schema: {} } } }
  return {
    summary,
    ...(path.includes('{id}') ? { parameters: [{ name: 'id', in: 'path', required: true, schema: { type: 'string' } }] } : {}),
    ...(body === null
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: tableSchema(body) } } } }),
    responses: { 200: success, '4XX': error, '5XX': error },
  }
}
