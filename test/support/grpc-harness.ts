// The gRPC server on a scripted engine and the demo tokenizer, with clients of every service.

import { type ChannelCredentials, type Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { pino } from 'pino'
import type { GrpcConfig } from '../../src/config.ts'
import { createServerContext } from '../../src/server/generation/server-context.ts'
import { Status } from '../../src/server/grpc/generated/google/rpc/status.ts'
import { GRPCInferenceServiceClient } from '../../src/server/grpc/generated/inference/grpc_service.ts'
import { AdaptersClient } from '../../src/server/grpc/generated/lorikeet/v1/adapters.ts'
import {
  GenerateRequest,
  InferenceClient,
  Output,
  Sampling,
  Stopping,
} from '../../src/server/grpc/generated/lorikeet/v1/inference.ts'
import { GrpcServer } from '../../src/server/grpc/grpc-server.ts'
import { FakeEngine } from './fake-engine.ts'
import { demoText, type HarnessOptions, type LogLine, testConfig } from './http-harness.ts'

export interface GrpcClients {
  readonly inference: InferenceClient
  readonly adapters: AdaptersClient
  readonly kserve: GRPCInferenceServiceClient
}

export interface GrpcHarness extends GrpcClients {
  readonly engine: FakeEngine
  readonly server: GrpcServer
  readonly log: LogLine[]
  /** `127.0.0.1:PORT`. */
  readonly address: string
  close(): Promise<void>
}

export type GrpcHarnessOptions = HarnessOptions & { readonly grpc?: Partial<GrpcConfig>; readonly port?: number }

export async function startGrpcHarness(options: GrpcHarnessOptions = {}): Promise<GrpcHarness> {
  const engine = new FakeEngine(options)
  const log: LogLine[] = []
  const logger = pino({ level: 'info' }, { write: (line: string) => log.push(JSON.parse(line)) })
  const config = testConfig(options)
  const context = createServerContext({
    config: { ...config, grpc: { ...config.grpc, ...options.grpc } },
    engine: options.engine ?? engine,
    text: options.text ?? demoText(),
    logger,
    version: '9.9.9',
    ...(options.tracer === undefined ? {} : { tracer: options.tracer }),
  })
  const server = GrpcServer.create(context)
  const address = `127.0.0.1:${await server.listen(options.port ?? 0)}`
  const clients = connect(address)
  return {
    ...clients,
    engine,
    server,
    log,
    address,
    close: async () => {
      disconnect(clients)
      await server.close(0)
    },
  }
}

export function connect(address: string, channel: ChannelCredentials = credentials.createInsecure()): GrpcClients {
  return {
    inference: new InferenceClient(address, channel),
    adapters: new AdaptersClient(address, channel),
    kserve: new GRPCInferenceServiceClient(address, channel),
  }
}

export function disconnect(clients: GrpcClients): void {
  for (const client of [clients.inference, clients.adapters, clients.kserve] as Client[]) client.close()
}

type Callback<Response> = (error: ServiceError | null, response: Response) => void

/** A unary call as a promise. */
export function call<Response>(start: (callback: Callback<Response>) => unknown): Promise<Response> {
  return new Promise((resolve, reject) => {
    start((error, response) => (error === null ? resolve(response) : reject(error)))
  })
}

/** The error a call ends with. */
export async function failure(promise: Promise<unknown>): Promise<ServiceError> {
  return promise.then(
    () => {
      throw new Error('the call did not fail')
    },
    (error: ServiceError) => error,
  )
}

/** Everything a stream says. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const messages: T[] = []
  for await (const message of stream) messages.push(message)
  return messages
}

export function metadata(entries: Record<string, string>): Metadata {
  const result = new Metadata()
  for (const [key, value] of Object.entries(entries)) result.set(key, value)
  return result
}

/** Types of the google.rpc details of an error. */
export function detailTypes(error: ServiceError): string[] {
  const [encoded] = error.metadata.get('grpc-status-details-bin')
  return Status.decode(encoded as Buffer).details.map(({ typeUrl }) => typeUrl.replace('type.googleapis.com/google.rpc.', ''))
}

// A message with every field at its default is what zero bytes decode to.
const NOTHING = new Uint8Array(0)

export interface RequestParts extends Partial<Omit<GenerateRequest, 'sampling' | 'stopping' | 'output'>> {
  readonly text?: string
  readonly sampling?: Partial<Sampling>
  readonly stopping?: Partial<Stopping>
  readonly output?: Partial<Output>
}

export function generateRequest({ text, sampling, stopping, output, ...rest }: RequestParts): GenerateRequest {
  return {
    ...GenerateRequest.decode(NOTHING),
    input: text === undefined ? undefined : { $case: 'text', text },
    sampling: { ...Sampling.decode(NOTHING), ...sampling },
    stopping: { ...Stopping.decode(NOTHING), ...stopping },
    output: { ...Output.decode(NOTHING), ...output },
    ...rest,
  }
}
