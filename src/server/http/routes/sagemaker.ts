// SageMaker: POST /invocations in any dialect, POST /adapters and DELETE /adapters/{name}. GET and POST /ping stand elsewhere.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isJsonObject, type JsonObject } from '../../../core/json.ts'
import { inFieldsOf } from '../../generation/adapter-admin.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { CHAT_FIELDS } from '../../request/chat-fields.ts'
import { COMPLETION_FIELDS } from '../../request/completion-fields.ts'
import { boolean, fieldInvalid, fieldUnsupported, ignored, required, string } from '../../request/fields.ts'
import { LORAX_FIELDS } from '../../request/lorax-fields.ts'
import { readJsonBody } from '../json-body.ts'
import { loraxError } from '../lorax/lorax-error.ts'
import { replyLorax } from '../lorax/lorax-reply.ts'
import { callHead } from '../request-id.ts'
import { answerOr, errorSender } from '../send-error.ts'
import { dualErrorSender, readAdapterFields, sendText } from './adapters.ts'
import { CHAT_PREFIX, replyChat } from './chat-completions.ts'
import { COMPLETION_PREFIX, replyCompletion } from './completions.ts'

/** Names the adapter, in place of the body's `model`. */
const ADAPTER_HEADER = 'x-amzn-sagemaker-adapter-identifier'

export const SAGEMAKER_ADAPTER_FIELDS = {
  name: required(string({ isEmptyAllowed: false })),
  src: required(string({ isEmptyAllowed: false })),
  load_inplace: boolean(false),
  // Hints of SageMaker's own container; here adapters are kept by use.
  preload: ignored(),
  pin: ignored(),
}

/** Which of them is there says whose body it is; the rest is read by that dialect's table. */
export const INVOCATION_FIELDS = {
  messages: CHAT_FIELDS.messages,
  prompt: { ...COMPLETION_FIELDS.prompt, isRequired: false },
  inputs: { ...LORAX_FIELDS.inputs, isRequired: false },
}

export function registerSageMaker(app: FastifyInstance, context: ServerContext): void {
  const sendLoraxError = errorSender(context, loraxError)
  app.post('/invocations', async (request, reply) => {
    context.generations.assertReady()
    const body = readJsonBody(request.body, request.headers['content-type'])
    if (isPresent(body, 'inputs')) {
      return answerOr(sendLoraxError, request, reply, () => invokeLorax(request, reply, body, context))
    }
    return invokeOpenAi(request, reply, body, context)
  })
}

/** Mounted only when adapters may be loaded at run time. */
export function registerSageMakerAdapters(app: FastifyInstance, context: ServerContext): void {
  const { adapterAdmin: admin } = context
  const errorHandler = dualErrorSender(context)

  app.post('/adapters', { errorHandler }, async (request, reply) => {
    context.generations.assertReady()
    const { name, src: path, load_inplace: isReplacing } = readAdapterFields(SAGEMAKER_ADAPTER_FIELDS, request)
    const adapter = await admin.load({ name, path, isReplacing }).catch(failInFields)
    context.logger.info({ adapter: name, kind: adapter.kind, rank: adapter.maxRank, bytes: adapter.numBytes }, 'adapter loaded')
    return sendText(reply, `Success: LoRA adapter '${name}' added successfully.`)
  })

  // A wildcard, because names may hold slashes.
  app.delete<{ Params: { '*': string } }>('/adapters/*', { errorHandler }, async (request, reply) => {
    context.generations.assertReady()
    const name = request.params['*']
    await admin.unload(name).catch(failInFields)
    context.logger.info({ adapter: name }, 'adapter unloaded')
    return sendText(reply, `Success: LoRA adapter '${name}' removed successfully.`)
  })
}

function failInFields(thrown: unknown): never {
  throw inFieldsOf(thrown, { name: 'name', path: 'src' })
}

function invokeLorax(
  request: FastifyRequest,
  reply: FastifyReply,
  body: JsonObject,
  context: ServerContext,
): Promise<FastifyReply> {
  const adapter = namedAdapter(request)
  const parameters = isJsonObject(body['parameters']) ? body['parameters'] : {}
  const named = adapter === null ? body : { ...body, parameters: { ...parameters, adapter_id: adapter } }
  return replyLorax(request, reply, named, { isStream: null, isArray: true }, context)
}

async function invokeOpenAi(
  request: FastifyRequest,
  reply: FastifyReply,
  body: JsonObject,
  context: ServerContext,
): Promise<FastifyReply> {
  const adapter = namedAdapter(request)
  const named = adapter === null ? body : { ...body, model: adapter }
  if (isPresent(body, 'messages')) return replyChat(reply, named, callHead(CHAT_PREFIX, request), context)
  if (isPresent(body, 'prompt')) return replyCompletion(reply, named, callHead(COMPLETION_PREFIX, request), context)
  if (isPresent(body, 'input')) throw fieldUnsupported('input', 'it does not embed')
  throw fieldInvalid('prompt', 'is required, or messages, or inputs')
}

function namedAdapter({ headers }: FastifyRequest): string | null {
  const header = headers[ADAPTER_HEADER]
  return typeof header === 'string' && header !== '' ? header : null
}

function isPresent(body: JsonObject, name: string): boolean {
  return Object.hasOwn(body, name) && body[name] !== null
}
