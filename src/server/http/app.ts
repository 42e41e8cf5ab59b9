// The HTTP server: fastify with our own parsing, errors and ids, and every route.

import type { Socket } from 'node:net'
import cors from '@fastify/cors'
import fastify, { type ConnectionError, type FastifyInstance, type FastifyRequest } from 'fastify'
import { LorikeetError } from '../../errors.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { Auth } from './auth.ts'
import { type ErrorStyle, errorBody } from './error-body.ts'
import { LOAD_REQUEST_HEADER, LOAD_RESPONSE_HEADER, loadReport } from './load-header.ts'
import { ROUTES, type RouteDoc } from './openapi.ts'
import { requestIdOf } from './request-id.ts'
import { countRequests } from './request-metrics.ts'
import { registerAdapters } from './routes/adapters.ts'
import { registerChatCompletions } from './routes/chat-completions.ts'
import { registerCompletions } from './routes/completions.ts'
import { registerConsole } from './routes/console.ts'
import { registerLorax } from './routes/lorax.ts'
import { registerModels } from './routes/models.ts'
import { registerSageMaker, registerSageMakerAdapters } from './routes/sagemaker.ts'
import { registerSystem } from './routes/system.ts'
import { registerTokenize } from './routes/tokenize.ts'
import { errorSender } from './send-error.ts'

// Above the idle times of common load balancers (60 s), so that they close connections and not we.
const KEEP_ALIVE_MS = 75_000
// Names of adapters may be long paths; the default of 100 would answer 404.
const MAX_PARAM_CHARS = 1024

/** Builds the server without listening. */
export async function buildApp(context: ServerContext): Promise<FastifyInstance> {
  const { server: config, adapters } = context.config
  const routes = ROUTES.filter((route) => adapters.allowRuntimeUpdating || !route.isRuntimeUpdate)
  const onError = errorSender(context, (error) => ({ status: error.httpStatus, body: errorBody(error, config.errorStyle) }))
  const app = fastify({
    bodyLimit: config.bodyLimitBytes,
    keepAliveTimeout: KEEP_ALIVE_MS,
    routerOptions: { maxParamLength: MAX_PARAM_CHARS },
    genReqId: requestIdOf,
    frameworkErrors: (error, request, reply) => void onError(error, request, reply),
    clientErrorHandler: (error, socket) => refuseConnection(error, socket, config.errorStyle),
    // Connections without a request in flight do not hold up the end.
    forceCloseConnections: 'idle',
  })
  await app.register(cors, { origin: '*', methods: ['GET', 'POST', 'DELETE', 'OPTIONS'], exposedHeaders: ['x-request-id'] })
  readBodiesAsBuffers(app)
  countRequests(app, context.metrics)
  const auth = new Auth(context.apiKeys, config.guardMetrics)
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    auth.check(request.method, request.url, request.headers.authorization)
    const loadFormat = request.headers[LOAD_REQUEST_HEADER]
    const report = typeof loadFormat === 'string' ? loadReport(loadFormat, context.engine.stats()) : null
    if (report !== null) reply.header(LOAD_RESPONSE_HEADER, report)
  })
  app.setErrorHandler(onError)
  app.setNotFoundHandler((request) => {
    throw notFound(request, routes)
  })
  registerCompletions(app, context)
  registerChatCompletions(app, context)
  registerModels(app, context)
  registerTokenize(app, context)
  registerLorax(app, context)
  registerSageMaker(app, context)
  registerSystem(app, context, routes)
  registerConsole(app)
  if (adapters.allowRuntimeUpdating) {
    registerAdapters(app, context)
    registerSageMakerAdapters(app, context)
  }
  return app
}

/** Routes parse by themselves: fastify's parsers would answer in their own shape. */
function readBodiesAsBuffers(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
}

/** What is not HTTP, or has headers beyond all limits, never becomes a request; its answer has the same shape all the same. */
function refuseConnection(error: ConnectionError, socket: Socket, style: ErrorStyle): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const body = JSON.stringify(
    errorBody(new LorikeetError('BODY_INVALID', { reason: `not a request of HTTP: ${error.message}` }), style),
  )
  const head = ['HTTP/1.1 400 Bad Request', 'connection: close', 'content-type: application/json; charset=utf-8']
  socket.end(`${head.join('\r\n')}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
}

function notFound(request: FastifyRequest, routes: readonly RouteDoc[]): LorikeetError {
  const path = request.url.split('?', 1)[0] as string
  const { method } = request
  const allowed = routes.filter((route) => isPathOf(route, path)).map((route) => route.method.toUpperCase())
  if (allowed.length === 0) return new LorikeetError('ROUTE_NOT_FOUND', { method, path })
  return new LorikeetError('METHOD_NOT_ALLOWED', { method, path, allowed: allowed.join(', ') })
}

function isPathOf(route: RouteDoc, path: string): boolean {
  if (!route.path.endsWith('/{id}')) return route.path === path
  const prefix = route.path.slice(0, -'{id}'.length)
  return path.startsWith(prefix) && path.length > prefix.length
}
