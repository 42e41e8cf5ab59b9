// Health, version, load, metrics, and the description of the API.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { ServerContext } from '../../generation/server-context.ts'
import { openApiDocument, type RouteDoc } from '../openapi.ts'

export function registerSystem(app: FastifyInstance, context: ServerContext, routes: readonly RouteDoc[]): void {
  const answerProbe = async (_request: FastifyRequest, reply: FastifyReply) => {
    const refusal = context.generations.refusal()
    if (refusal !== null) throw refusal
    return reply.send()
  }
  for (const path of ['/health', '/ping']) app.get(path, answerProbe)
  // SageMaker's probe may use either method.
  app.post('/ping', answerProbe)
  app.get('/version', async () => ({ version: context.version }))
  app.get('/load', async () => ({ server_load: context.generations.numActive }))
  app.get('/metrics', async (_request, reply) => reply.type(context.metrics.contentType).send(await context.metrics.text()))

  const document = JSON.stringify(openApiDocument(context.version, routes))
  app.get('/openapi.json', async (_request, reply) => reply.type('application/json; charset=utf-8').send(document))
}
