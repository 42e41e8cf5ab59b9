// LoRAX: POST /generate, /generate_stream and /, GET /info and /startup.

import type { FastifyInstance } from 'fastify'
import type { ServerContext } from '../../generation/server-context.ts'
import { readJsonBody } from '../json-body.ts'
import { loraxError } from '../lorax/lorax-error.ts'
import { loraxInfo } from '../lorax/lorax-info.ts'
import { type LoraxRoute, replyLorax } from '../lorax/lorax-reply.ts'
import { errorSender } from '../send-error.ts'

const ROUTES: Readonly<Record<string, LoraxRoute>> = {
  '/generate': { isStream: false, isArray: false },
  '/generate_stream': { isStream: true, isArray: false },
  // Hugging Face's hosted models answer at their own address, and so do LoRAX's Python clients ask.
  '/': { isStream: null, isArray: true },
}

export function registerLorax(app: FastifyInstance, context: ServerContext): void {
  const errorHandler = errorSender(context, loraxError)
  for (const [path, route] of Object.entries(ROUTES)) {
    app.post(path, { errorHandler }, async (request, reply) => {
      context.generations.assertReady()
      const body = readJsonBody(request.body, request.headers['content-type'])
      return replyLorax(request, reply, body, route, context)
    })
  }
  app.get('/info', { errorHandler }, async () => loraxInfo(context))
  app.get('/startup', { errorHandler }, async (_request, reply) => {
    context.generations.assertReady()
    return reply.send()
  })
}
