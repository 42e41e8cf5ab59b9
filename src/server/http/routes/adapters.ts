// POST /v1/load_lora_adapter and /v1/unload_lora_adapter, mounted only when runtime loading is allowed.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { asLorikeetError, LorikeetError } from '../../../errors.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { boolean, type FieldTable, type FieldValues, ignored, readFields, required, string } from '../../request/fields.ts'
import { dualErrorBody } from '../error-body.ts'
import { readJsonBody } from '../json-body.ts'
import { errorSender, type SendError } from '../send-error.ts'

export const LOAD_ADAPTER_FIELDS = {
  lora_name: required(string({ isEmptyAllowed: false })),
  lora_path: required(string({ isEmptyAllowed: false })),
  load_inplace: boolean(false),
  is_3d_lora_weight: ignored(),
  base_model_name: ignored(),
}

export const UNLOAD_ADAPTER_FIELDS = {
  lora_name: required(string({ isEmptyAllowed: false })),
  lora_int_id: ignored(),
}

export function registerAdapters(app: FastifyInstance, context: ServerContext): void {
  const { adapterAdmin: admin } = context
  const errorHandler = dualErrorSender(context)

  app.post('/v1/load_lora_adapter', { errorHandler }, async (request, reply) => {
    context.generations.assertReady()
    const values = readAdapterFields(LOAD_ADAPTER_FIELDS, request)
    const { lora_name: name, lora_path: path, load_inplace: isReplacing } = values
    const adapter = await admin.load({ name, path, isReplacing })
    context.logger.info({ adapter: name, kind: adapter.kind, rank: adapter.maxRank, bytes: adapter.numBytes }, 'adapter loaded')
    return sendText(reply, `Success: LoRA adapter '${name}' added successfully.`)
  })

  app.post('/v1/unload_lora_adapter', { errorHandler }, async (request, reply) => {
    context.generations.assertReady()
    const { lora_name: name } = readAdapterFields(UNLOAD_ADAPTER_FIELDS, request)
    await admin.unload(name)
    context.logger.info({ adapter: name }, 'adapter unloaded')
    return sendText(reply, `Success: LoRA adapter '${name}' removed successfully.`)
  })
}

/** For routes that controllers call, some of which read the error at the top level. */
export function dualErrorSender(context: ServerContext): SendError {
  const style = context.config.server.errorStyle
  return errorSender(context, (error) => ({ status: error.httpStatus, body: dualErrorBody(error, style) }))
}

/** Controllers look for vLLM's type of error on these routes. */
export function readAdapterFields<Table extends FieldTable>(table: Table, request: FastifyRequest): FieldValues<Table> {
  const body = readJsonBody(request.body, request.headers['content-type'])
  try {
    return readFields(table, body)
  } catch (thrown) {
    const error = asLorikeetError(thrown)
    throw error.code === 'FIELD_INVALID'
      ? new LorikeetError('ADAPTER_FIELD_INVALID', error.params, { field: error.field ?? '' })
      : error
  }
}

export function sendText(reply: FastifyReply, text: string): FastifyReply {
  return reply.type('text/plain; charset=utf-8').send(text)
}
