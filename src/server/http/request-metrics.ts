// One observation a request, under the template of its route.

import type { FastifyInstance } from 'fastify'
import type { ServerMetrics } from '../../metrics/server-metrics.ts'

/** What is asked for and does not exist counts under one name: paths are the clients' choice. */
const NO_ROUTE = 'none'

export function countRequests(app: FastifyInstance, metrics: ServerMetrics): void {
  app.addHook('onResponse', async (request, reply) => {
    metrics.observeHttp({
      handler: request.is404 ? NO_ROUTE : (request.routeOptions.url ?? NO_ROUTE),
      method: request.method,
      statusCode: reply.statusCode,
      durationS: reply.elapsedTime / 1000,
      requestBytes: length(request.headers['content-length']),
      // Streams do not state theirs.
      responseBytes: length(reply.getHeader('content-length')),
    })
  })
}

function length(header: number | string | readonly string[] | undefined): number {
  const bytes = Number(header)
  return Number.isFinite(bytes) ? bytes : 0
}
