// The console: a page at / and its files under /console/. They are open to everybody; what they ask of the server is not.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { LorikeetError } from '../../../errors.ts'
import { type ConsoleAsset, readConsoleAssets } from '../../console/console-assets.ts'

/** Nothing from elsewhere, nothing inline, no text that becomes markup: names of adapters and model output are untrusted. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join('; ')

const HEADERS = {
  'content-security-policy': CONTENT_SECURITY_POLICY,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  // Kept by browsers and asked about each time, so that a new release never meets half of an old page.
  'cache-control': 'no-cache',
} as const

export function registerConsole(app: FastifyInstance): void {
  const assets = readConsoleAssets()
  const page = assets.get('index.html')
  if (page !== undefined) app.get('/', async (request, reply) => sendAsset(page, request, reply))
  app.get<{ Params: { name: string } }>('/console/:name', async (request, reply) => {
    const asset = assets.get(request.params.name)
    if (asset === undefined) throw new LorikeetError('ROUTE_NOT_FOUND', { method: request.method, path: request.url })
    return sendAsset(asset, request, reply)
  })
}

function sendAsset(asset: ConsoleAsset, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  reply.headers(HEADERS).header('etag', asset.etag)
  // A proxy that compresses marks it weak, and a list of them is allowed.
  if (request.headers['if-none-match']?.includes(asset.etag)) return reply.code(304).send()
  return reply.type(asset.contentType).send(asset.body)
}
