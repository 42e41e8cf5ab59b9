#!/usr/bin/env node
// Process entry: reads the command line; `serve` starts the engine thread, loads adapters, listens, and drains on a signal.

import type { Logger } from 'pino'
import { banner, localUrl } from './cli/banner.ts'
import { runProgram } from './cli/doctor/backend-probes.ts'
import { examine, formatReport } from './cli/doctor/doctor-report.ts'
import { helpOf } from './cli/help.ts'
import { LoadingProgress } from './cli/loading-progress.ts'
import { createLogger, logFormat } from './cli/logger.ts'
import { loadStartAdapters } from './cli/start-adapters.ts'
import { onLostNpm, onTermination } from './cli/termination.ts'
import { readVersion } from './cli/version.ts'
import { loadConfig } from './config/load-config.ts'
import { nearMiss } from './config/near-miss.ts'
import type { Config } from './config.ts'
import { EngineClient } from './engine/engine-client.ts'
import { asLorikeetError, LorikeetError } from './errors.ts'
import type { RequestTracer } from './server/generation/request-tracer.ts'
import { createServerContext, type ServerContext } from './server/generation/server-context.ts'
import type { GrpcServer } from './server/grpc/grpc-server.ts'
import { HttpServer } from './server/http/http-server.ts'
import type { OtelTracerOptions } from './server/tracing/otel-tracer.ts'
import { loadTextModel } from './tokenizer/text-model.ts'

// As shells and GNU tools use them.
const EXIT_FAILED = 1
const EXIT_USAGE = 2

/** What a server may take beyond --drain-timeout to close its connections before they are cut. */
const CLOSE_SLACK_MS = 2000

const COMMANDS = ['serve', 'bench', 'trace', 'inspect', 'delta', 'doctor', 'help', 'version']

async function main([command = 'help', ...args]: readonly string[]): Promise<void> {
  const wantsHelp = args.includes('--help') || args.includes('-h')
  if (command === 'version' || command === '--version' || command === '-v') console.log(readVersion())
  else if (command === 'help' || command === '--help' || command === '-h') printHelp(args[0])
  else if (command === 'bench' || command === 'trace') await harness(command, args)
  else if (wantsHelp) printHelp(command)
  else if (command === 'doctor') doctor(args)
  else if (command === 'inspect') process.stdout.write((await import('./cli/inspect.ts')).runInspect(args))
  else if (command === 'delta') process.stdout.write((await import('./cli/delta.ts')).runDelta(args))
  else if (command === 'serve') await serve(args)
  else throw unknownCommand(command)
}

function printHelp(topic: string | undefined): void {
  process.stdout.write(helpOf(topic))
}

function unknownCommand(command: string): LorikeetError {
  const near = command.startsWith('-') ? 'serve' : nearMiss(command, COMMANDS)
  const hint = near === null ? 'lorikeet help lists them' : `did you mean lorikeet ${near}?`
  return new LorikeetError('CONFIG_INVALID', { option: command, reason: `no such command; ${hint}` })
}

/** The load harness is a program of its own beside the server: it is compiled apart and loaded only here. */
async function harness(command: 'bench' | 'trace', args: readonly string[]): Promise<void> {
  const url = new URL('./harness/bench/harness.js', import.meta.url)
  const { runHarness } = (await import(url.href)) as {
    runHarness: (command: string, args: readonly string[]) => Promise<number>
  }
  process.exit(await runHarness(command, args))
}

function doctor(args: readonly string[]): void {
  const options = args.filter((arg) => arg !== '--json')
  const config = options.length === 0 ? null : loadConfig(options, process.env).config
  const report = examine(readVersion(), config, runProgram)
  process.stdout.write(options.length < args.length ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report))
  if (!report.runs) process.exitCode = EXIT_FAILED
}

async function serve(args: readonly string[]): Promise<void> {
  const { config, notes } = loadConfig(args, process.env)
  const isTerminal = process.stdout.isTTY === true
  const logger = createLogger(config.log, logFormat(config.log, isTerminal), isTerminal)
  for (const note of notes) logger.info(note)
  const engine = EngineClient.start({ config, threadUrl: new URL('./engine-thread.js', import.meta.url) })
  let server: Servers | null = null
  let isEnding = false
  const end = (signal: string): void => {
    if (isEnding) return
    isEnding = true
    logger.info({ signal, running: engine.stats().numRunning }, 'draining; signal again to end at once')
    void drain(engine, server, config.server.drainTimeoutMs, logger)
  }
  onTermination(process, end, (status) => process.exit(status))
  onLostNpm(
    process.env,
    () => process.ppid,
    () => end('npm ended'),
  )
  watchEngine(engine, logger, () => server !== null)
  try {
    server = await start(engine, config, logger)
  } catch (error) {
    // What a signal interrupted has not failed: the drain ends the process.
    if (isEnding) return
    await engine.shutdown(0)
    throw error
  }
}

/** Everything that listens. */
interface Servers {
  /** Resolves when all have closed. */
  close(timeoutMs: number): Promise<unknown>
}

async function start(engine: EngineClient, config: Config, logger: Logger): Promise<Servers> {
  const progress = process.stderr.isTTY ? new LoadingProgress(process.stderr) : null
  engine.onLoading((loadedBytes, totalBytes) => progress?.update(loadedBytes, totalBytes))
  const { chatTemplate, useGenerationConfig } = config.server
  // Both are awaited even when one fails, so that neither failure is left unhandled.
  const [text, model] = await Promise.allSettled([
    loadTextModel(config.model.path, { chatTemplate, useGenerationConfig }),
    engine.ready,
  ])
  progress?.clear()
  if (model.status === 'rejected') throw model.reason
  if (text.status === 'rejected') throw text.reason
  const version = readVersion()
  // Before the adapters, so that the metrics see them load.
  const { endpoint } = config.tracing
  const tracer = endpoint === null ? null : await createTracer({ endpoint, version, logger })
  const options = { config, engine, text: text.value, logger, version }
  const context = createServerContext(tracer === null ? options : { ...options, tracer })
  const adapters = await loadStartAdapters(engine, config.adapters, config.model.servedNames)
  for (const { name, reason } of adapters.refused) logger.warn({ adapter: name }, `not served: ${reason}`)
  const grpc = config.grpc.port === null ? null : await createGrpcServer(context)
  const grpcPort = grpc === null ? null : await listenGrpc(grpc, config, logger)
  const http = await HttpServer.create(context)
  const address = await http.listen()
  const facts = {
    version,
    url: localUrl(address, config.server.uds),
    grpcPort,
    needsKey: config.server.apiKeys.length > 0,
    baseName: config.model.servedNames[0] ?? config.model.path,
    model: model.value,
    adapters: adapters.loaded,
    refusedAdapters: adapters.refused.map((one) => one.name),
    hasTokenizer: text.value.tokenizer !== null,
  }
  logger.info(
    { address, grpcPort, model: facts.baseName, backend: model.value.backend, adapters: engine.adapters().length },
    'listening',
  )
  // A log collector that was promised JSON gets nothing else; a person who redirects standard output still sees the banner.
  const screen = process.stdout.isTTY || config.log.format === 'pretty' ? process.stdout : process.stderr
  if (config.log.format !== 'json') screen.write(banner(facts))
  const close = async (timeoutMs: number): Promise<void> => {
    await Promise.all([http.close(timeoutMs), grpc?.close(timeoutMs)])
    await tracer?.shutdown()
  }
  return { close }
}

/** Loaded only when wanted: a server that sends no traces loads no OpenTelemetry. */
async function createTracer(options: OtelTracerOptions): Promise<RequestTracer> {
  const { OtelTracer } = await import('./server/tracing/otel-tracer.ts')
  return new OtelTracer(options)
}

/** Loaded only when wanted: its libraries take a tenth of a second. */
async function createGrpcServer(context: ServerContext): Promise<GrpcServer> {
  const { GrpcServer } = await import('./server/grpc/grpc-server.ts')
  return GrpcServer.create(context)
}

/** A second server on a host has its own --port and seldom thinks of gRPC's: only a port that was named must be had. */
async function listenGrpc(grpc: GrpcServer, config: Config, logger: Logger): Promise<number | null> {
  try {
    return await grpc.listen(config.grpc.port ?? 0)
  } catch (error) {
    if (config.grpc.isPortRequired) throw error
    logger.warn(`serving without gRPC: ${asLorikeetError(error).message}`)
    return null
  }
}

/** A start that fails ends the process with one line of its own: only the death of an engine that served is logged. */
function watchEngine(engine: EngineClient, logger: Logger, isServing: () => boolean): void {
  engine.onWarning((message) => logger.warn(message))
  engine.onStateChange((state, error) => {
    if (error !== null && isServing()) logger.error({ err: error, code: error.code }, `engine ${state}`)
    else logger.debug(`engine ${state}`)
  })
}

async function drain(engine: EngineClient, server: Servers | null, timeoutMs: number, logger: Logger): Promise<void> {
  const cut = new Promise<void>((resolve) => setTimeout(resolve, timeoutMs + CLOSE_SLACK_MS))
  try {
    await Promise.race([server?.close(timeoutMs), cut])
    await engine.shutdown(0)
  } catch (error) {
    logger.error({ err: error }, 'closing failed')
  }
  logger.info('stopped')
  process.exit()
}

try {
  await main(process.argv.slice(2))
} catch (thrown) {
  const error = asLorikeetError(thrown)
  process.stderr.write(`lorikeet: ${error.message}\n`)
  if (error.code === 'INTERNAL' && error.cause instanceof Error) process.stderr.write(`${error.cause.stack}\n`)
  process.exit(error.code === 'CONFIG_INVALID' ? EXIT_USAGE : EXIT_FAILED)
}
