// POST /tokenize and /detokenize

import type { FastifyInstance } from 'fastify'
import type { ServerContext } from '../../generation/server-context.ts'
import { tokenizeInputs } from '../../request/lorax-tokenize.ts'
import { detokenize, tokenize } from '../../request/tokenize-call.ts'
import { readJsonBody } from '../json-body.ts'
import { loraxError } from '../lorax/lorax-error.ts'
import { answerOr, errorSender } from '../send-error.ts'

export function registerTokenize(app: FastifyInstance, context: ServerContext): void {
  const sendLoraxError = errorSender(context, loraxError)
  app.post('/tokenize', async (request, reply) => {
    const body = readJsonBody(request.body, request.headers['content-type'])
    if (Object.hasOwn(body, 'inputs')) return answerOr(sendLoraxError, request, reply, () => tokenizeInputs(body, context))
    const { tokenIds, tokenStrings } = await tokenize(body, context)
    return {
      count: tokenIds.length,
      max_model_len: context.engine.model.maxModelLen,
      tokens: tokenIds,
      token_strs: tokenStrings,
    }
  })

  app.post('/detokenize', async (request) => {
    const body = readJsonBody(request.body, request.headers['content-type'])
    return { prompt: await detokenize(body, context) }
  })
}
