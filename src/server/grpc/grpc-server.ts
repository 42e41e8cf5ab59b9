// The gRPC server as its process uses it: build, listen, drain.

import { logVerbosity, Server, type ServerOptions, setLogVerbosity } from '@grpc/grpc-js'
import type { GrpcConfig } from '../../config.ts'
import { LorikeetError } from '../../errors.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { adaptersService } from './adapters-service.ts'
import { authenticate } from './authenticate.ts'
import { serverCredentials } from './credentials.ts'
import { GRPCInferenceServiceService } from './generated/inference/grpc_service.ts'
import { AdaptersService } from './generated/lorikeet/v1/adapters.ts'
import { GenerateStreamResponse, InferenceService } from './generated/lorikeet/v1/inference.ts'
import { Health } from './health.ts'
import { inferenceService } from './inference-service.ts'
import { kserveService } from './kserve/kserve-service.ts'
import { messageSerializer } from './message-serializer.ts'
import { addReflection } from './reflection.ts'

const SERVICE_NAMES = ['lorikeet.v1.Inference', 'lorikeet.v1.Adapters', 'inference.GRPCInferenceService']
// gRPC's own default: for connections nobody speaks on, through firewalls that forget them after hours.
const KEEPALIVE_MS = 2 * 60 * 60 * 1000
// What a call may still take on a connection that is to be closed for its age.
const AGE_GRACE_MS = 60_000
// Watches of health and adapters end only with the server; clients that were just answered get this long to read it.
const CLOSE_GRACE_MS = 500

export class GrpcServer {
  readonly #server: Server
  readonly #health: Health
  readonly #context: ServerContext

  private constructor(server: Server, health: Health, context: ServerContext) {
    this.#server = server
    this.#health = health
    this.#context = context
  }

  static create(context: ServerContext): GrpcServer {
    // It writes to standard error, past our log, what it also returns.
    setLogVerbosity(logVerbosity.NONE)
    const { config, apiKeys, logger, generations } = context
    const server = new Server(serverOptions(config.grpc, apiKeys.isOpen ? [] : [authenticate(apiKeys, logger)]))
    server.addService(inferenceDefinition(), inferenceService(context))
    server.addService(AdaptersService, adaptersService(context))
    server.addService(GRPCInferenceServiceService, kserveService(context))
    const health = new Health(server, SERVICE_NAMES, generations)
    if (config.grpc.hasReflection) addReflection(server)
    return new GrpcServer(server, health, context)
  }

  /** Listens on `port`, 0 for a free one, and resolves to the port taken. Throws CONFIG_INVALID when it cannot be had. */
  listen(port: number): Promise<number> {
    const { server, grpc } = this.#context.config
    // An IPv6 address needs brackets before a port.
    const host = server.host.includes(':') ? `[${server.host}]` : server.host
    const credentials = serverCredentials(grpc.tls)
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(`${host}:${port}`, credentials, (error, bound) => {
        if (error === null) resolve(bound)
        else reject(portTaken(error))
      })
    })
  }

  /** Fails health, lets running requests finish for `timeoutMs`, aborts the rest, closes. */
  async close(timeoutMs: number): Promise<void> {
    const drained = this.#context.generations.drain(timeoutMs)
    this.#health.update()
    await drained
    await new Promise<void>((resolve) => {
      const cut = setTimeout(() => this.#server.forceShutdown(), CLOSE_GRACE_MS)
      this.#server.tryShutdown(() => {
        clearTimeout(cut)
        resolve()
      })
    })
    this.#health.close()
  }
}

function inferenceDefinition(): typeof InferenceService {
  const responseSerialize = messageSerializer(GenerateStreamResponse.encode)
  return { ...InferenceService, generateStream: { ...InferenceService.generateStream, responseSerialize } }
}

function portTaken(error: Error): LorikeetError {
  // The system's own words stand in brackets behind a count of addresses.
  const detail = /errors: \[(.*)\]/.exec(error.message)?.[1] ?? error.message
  const reason = `${detail}; name another port, or turn gRPC off with --no-grpc`
  return new LorikeetError('CONFIG_INVALID', { option: '--grpc-port', reason }, { cause: error })
}

function serverOptions(config: GrpcConfig, interceptors: ServerOptions['interceptors']): ServerOptions {
  return {
    'grpc.max_receive_message_length': config.maxMessageBytes,
    // Answers are as long as their requests made them.
    'grpc.max_send_message_length': -1,
    'grpc.keepalive_time_ms': KEEPALIVE_MS,
    'grpc.keepalive_permit_without_calls': 1,
    ...(config.maxConnectionAgeMs === null
      ? {}
      : { 'grpc.max_connection_age_ms': config.maxConnectionAgeMs, 'grpc.max_connection_age_grace_ms': AGE_GRACE_MS }),
    ...(interceptors === undefined || interceptors.length === 0 ? {} : { interceptors }),
  }
}
