// The HTTP server as its process uses it: build, listen, drain.

import type { FastifyInstance } from 'fastify'
import { LorikeetError } from '../../errors.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { buildApp } from './app.ts'

export class HttpServer {
  /** For tests that inject requests. */
  readonly app: FastifyInstance
  readonly #context: ServerContext

  private constructor(app: FastifyInstance, context: ServerContext) {
    this.app = app
    this.#context = context
  }

  static async create(context: ServerContext): Promise<HttpServer> {
    return new HttpServer(await buildApp(context), context)
  }

  /** Resolves to the address that clients use. Throws CONFIG_INVALID when it cannot be had. */
  async listen(): Promise<string> {
    const { host, port, uds } = this.#context.config.server
    try {
      return await this.app.listen(uds === null ? { host, port } : { path: uds })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new LorikeetError(
        'CONFIG_INVALID',
        { option: uds === null ? addressOption(error) : '--uds', reason },
        { cause: error },
      )
    }
  }

  /** Fails readiness, lets running requests finish for `timeoutMs`, aborts the rest, closes. */
  async close(timeoutMs: number): Promise<void> {
    await this.#context.generations.drain(timeoutMs)
    await this.app.close()
  }
}

/** The option that a failure to listen is about. */
function addressOption(error: unknown): '--host' | '--port' {
  const code = error instanceof Error && 'code' in error ? error.code : null
  return code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' ? '--host' : '--port'
}
