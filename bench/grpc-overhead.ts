// Host time a streamed token costs over gRPC and over SSE: processor time of the server's main thread, where both protocols run.
// Both clients are as plain as can be and only count, so that they do not hold the server up. The null backend outruns every reader,
// so that messages are merged; with --backend onnx each token is a message of its own.
//
//   npm run build && node --import tsx bench/grpc-overhead.ts [--backend null] [--rounds 3] [--calls 192] [--out FILE]

import { readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import http2, { type ClientHttp2Session } from 'node:http2'
import { parseArgs } from 'node:util'
import { invariant } from '../src/core/invariant.ts'
import { GenerateRequest } from '../src/server/grpc/generated/lorikeet/v1/inference.ts'
import { median } from './generation-run.ts'
import { freePort, MODEL, MODEL_NAME, startNullServer } from './null-server.ts'
import { describeEnvironment, writeResult } from './result-file.ts'

const MAX_TOKENS = 128
/** Token ids, so that no tokeniser runs on the way in. */
const PROMPT = [1, 403, 407, 261, 378]
/** Of /proc: clock ticks a second, the same on every Linux. */
const TICKS_PER_SECOND = 100

interface Target {
  readonly url: string
  readonly grpcUrl: string
  readonly pid: number
}

/** Answers the number of messages that one call received. */
type Caller = () => Promise<number>

interface Scenario {
  readonly name: string
  readonly numStreams: number
  /** Callers by stream, and how to let go of their connections. */
  readonly open: (target: Target, numStreams: number) => { readonly callers: readonly Caller[]; close(): void }
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'SSE, 1 stream', numStreams: 1, open: openSse },
  { name: 'gRPC, 1 stream', numStreams: 1, open: (target) => openGrpc(target, 1, 1) },
  { name: 'SSE, 64 streams', numStreams: 64, open: openSse },
  ...[1, 16, 32, 64].map((numConnections) => ({
    name: `gRPC, 64 streams on ${numConnections} connection${numConnections === 1 ? '' : 's'}`,
    numStreams: 64,
    open: (target: Target, count: number) => openGrpc(target, count, numConnections),
  })),
]

function openSse({ url }: Target, numStreams: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: numStreams })
  const body = JSON.stringify({
    model: MODEL_NAME,
    prompt: PROMPT,
    max_tokens: MAX_TOKENS,
    ignore_eos: true,
    temperature: 0,
    stream: true,
  })
  const caller = () =>
    new Promise<number>((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'content-length': body.length }
      const call = request(`${url}/v1/completions`, { method: 'POST', agent, headers }, (response) => {
        let numEvents = 0
        response.on('data', (chunk: Buffer) => {
          for (let at = chunk.indexOf('\n\n'); at >= 0; at = chunk.indexOf('\n\n', at + 2)) numEvents++
        })
        // The end mark is no token.
        response.on('end', () => resolve(numEvents - 1))
      })
      call.on('error', reject).end(body)
    })
  return { callers: Array.from({ length: numStreams }, () => caller), close: () => agent.destroy() }
}

function openGrpc({ grpcUrl }: Target, numStreams: number, numConnections: number) {
  const sessions = Array.from({ length: numConnections }, () => http2.connect(grpcUrl))
  const message = GenerateRequest.encode({
    ...GenerateRequest.decode(new Uint8Array(0)),
    input: { $case: 'tokenIds', tokenIds: { ids: PROMPT } },
    sampling: { temperature: 0, presencePenalty: 0, frequencyPenalty: 0, logitBias: {}, allowedTokenIds: [], badWords: [] },
    stopping: {
      maxTokens: MAX_TOKENS,
      ignoreEos: true,
      minTokens: 0,
      stop: [],
      stopTokenIds: [],
      includeStopStrInOutput: false,
    },
  }).finish()
  // Every message comes after a flag and its length.
  const framed = Buffer.alloc(5 + message.length)
  framed.writeUInt32BE(message.length, 1)
  framed.set(message, 5)
  const callers = Array.from({ length: numStreams }, (_, index) => {
    const session = sessions[index % numConnections]
    invariant(session !== undefined, 'every stream has a connection')
    return () => grpcCall(session, framed)
  })
  return {
    callers,
    close: () => {
      for (const session of sessions) session.destroy()
    },
  }
}

function grpcCall(session: ClientHttp2Session, framed: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/lorikeet.v1.Inference/GenerateStream',
      'content-type': 'application/grpc',
      te: 'trailers',
    })
    let numMessages = 0
    // Bytes of a message, or of a head of five bytes, that are still to come.
    let numLeft = 0
    let head = Buffer.alloc(0)
    stream.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; ) {
        const skipped = Math.min(numLeft, chunk.length - at)
        at += skipped
        numLeft -= skipped
        if (numLeft > 0 || at >= chunk.length) break
        const piece = chunk.subarray(at, at + 5 - head.length)
        head = Buffer.concat([head, piece])
        at += piece.length
        if (head.length < 5) break
        numLeft = head.readUInt32BE(1)
        numMessages++
        head = Buffer.alloc(0)
      }
    })
    // Started, Finished and Usage are no tokens.
    stream.on('end', () => resolve(numMessages - 3))
    stream.on('error', reject)
    stream.end(framed)
  })
}

interface Sample {
  /** Processor time of the main thread a token. */
  readonly mainMicros: number
  /** Of the whole process, with the engine's thread. */
  readonly processMicros: number
  readonly tokensPerSecond: number
  /** Below 1, messages were merged because the reader was behind. */
  readonly messagesPerToken: number
}

async function measure(scenario: Scenario, target: Target, numCalls: number): Promise<Sample> {
  const { callers, close } = scenario.open(target, scenario.numStreams)
  const callsEach = Math.max(1, Math.round(numCalls / scenario.numStreams))
  const before = processorSeconds(target.pid)
  const startMs = performance.now()
  const counts = await Promise.all(
    callers.map(async (caller) => {
      let numMessages = 0
      for (let i = 0; i < callsEach; i++) numMessages += await caller()
      return numMessages
    }),
  )
  const seconds = (performance.now() - startMs) / 1000
  const after = processorSeconds(target.pid)
  close()
  const numTokens = callsEach * scenario.numStreams * MAX_TOKENS
  return {
    mainMicros: ((after.main - before.main) * 1e6) / numTokens,
    processMicros: ((after.all - before.all) * 1e6) / numTokens,
    tokensPerSecond: numTokens / seconds,
    messagesPerToken: counts.reduce((sum, count) => sum + count, 0) / numTokens,
  }
}

function processorSeconds(pid: number): { main: number; all: number } {
  const seconds = (path: string) => {
    // The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
    const text = readFileSync(path, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
  }
  return { main: seconds(`/proc/${pid}/task/${pid}/stat`), all: seconds(`/proc/${pid}/stat`) }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      calls: { type: 'string', default: '192' },
      backend: { type: 'string', default: 'null' },
      out: { type: 'string', default: 'bench/results/grpc-overhead.json' },
    },
  })
  const environment = describeEnvironment()
  const grpcPort = await freePort()
  const server = await startNullServer(['--grpc-port', String(grpcPort), '--log-level', 'warn'], values.backend)
  const target = { url: server.url, grpcUrl: `http://127.0.0.1:${grpcPort}`, pid: server.pid }
  const numCalls = Number(values.calls)
  try {
    for (const scenario of SCENARIOS) await measure(scenario, target, numCalls)
    const rows = SCENARIOS.map((scenario) => ({ scenario, samples: [] as Sample[] }))
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const { scenario, samples } of rows) samples.push(await measure(scenario, target, numCalls))
    }
    console.log(
      '| case | main thread us/token | process us/token | tokens/s | messages/token |\n| --- | --- | --- | --- | --- |',
    )
    const medians = rows.map(({ scenario: { name }, samples }) => {
      const middle = (key: keyof Sample) => median(samples.map((sample) => sample[key]))
      const row = {
        name,
        mainMicros: middle('mainMicros'),
        processMicros: middle('processMicros'),
        tokensPerSecond: middle('tokensPerSecond'),
        messagesPerToken: middle('messagesPerToken'),
      }
      const { mainMicros, processMicros, tokensPerSecond, messagesPerToken } = row
      const cells = [mainMicros.toFixed(1), processMicros.toFixed(1), tokensPerSecond.toFixed(0), messagesPerToken.toFixed(2)]
      console.log(`| ${name} | ${cells.join(' | ')} |`)
      return { ...row, samples }
    })
    const setup = { model: MODEL, backend: values.backend, rounds: Number(values.rounds), numCalls, maxTokens: MAX_TOKENS }
    writeResult(values.out, { bench: 'grpc-overhead', environment, setup, medians })
  } finally {
    await server.stop()
  }
}

await main()
