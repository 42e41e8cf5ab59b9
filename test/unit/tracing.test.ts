import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Metadata } from '@grpc/grpc-js'
import { pino } from 'pino'
import { LorikeetError } from '../../src/errors.ts'
import { OtelTracer } from '../../src/server/tracing/otel-tracer.ts'
import { collect, generateRequest, metadata, startGrpcHarness } from '../support/grpc-harness.ts'
import { startHarness } from '../support/http-harness.ts'
import { TraceCollector } from '../support/trace-collector.ts'

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c'
const PARENT_ID = 'b7ad6b7169203331'
const traceparent = `00-${TRACE_ID}-${PARENT_ID}-01`

let collector: TraceCollector
before(async () => {
  collector = await TraceCollector.start()
})
after(() => collector.close())

function createTracer(endpoint = collector.url, shutdownMs = 10_000): OtelTracer {
  collector.spans.length = 0
  return new OtelTracer({ endpoint, version: '9.9.9', logger: pino({ level: 'silent' }), shutdownMs })
}

describe('traces', () => {
  it('have a span for each request, with what vLLM says of it', async () => {
    const tracer = createTracer()
    const harness = await startHarness({ tracer, script: () => [300, 301, 302] })
    await harness.engine.loadAdapter({ name: 'a', path: '/a' })
    const answer = await harness.post(
      '/v1/completions',
      { model: 'a', prompt: 'Once upon a time', max_tokens: 3, n: 2, temperature: 0.5, top_p: 0.9, seed: 1 },
      { traceparent, tracestate: 'vendor=x' },
    )
    await tracer.shutdown()
    await harness.close()
    const [span, ...others] = collector.spans
    assert.ok(span)
    assert.deepEqual(others, [])
    assert.deepEqual(collector.paths, ['/v1/traces application/x-protobuf'])
    assert.deepEqual(
      [span.name, span.traceId, span.parentSpanId, span.traceState],
      ['llm_request', TRACE_ID, PARENT_ID, 'vendor=x'],
    )
    // SPAN_KIND_SERVER
    assert.equal(span.kind, 2)
    assert.equal(span.resource['service.name'], 'lorikeet')
    assert.equal(span.resource['service.version'], '9.9.9')
    assert.equal(answer.headers['traceparent'], `00-${TRACE_ID}-${span.spanId}-01`)
    const { attributes } = span
    assert.deepEqual(Object.fromEntries(Object.entries(attributes).filter(([name]) => !name.includes('latency'))), {
      'gen_ai.request.id': answer.json.id,
      'gen_ai.request.model': 'a',
      'gen_ai.request.n': 2,
      'gen_ai.request.max_tokens': 3,
      'gen_ai.request.temperature': 0.5,
      'gen_ai.request.top_p': 0.9,
      'gen_ai.response.id': answer.json.id,
      'gen_ai.response.model': 'a',
      'gen_ai.response.finish_reasons': ['length', 'length'],
      'gen_ai.usage.prompt_tokens': 5,
      'gen_ai.usage.input_tokens': 5,
      'gen_ai.usage.completion_tokens': 6,
      'gen_ai.usage.output_tokens': 6,
      'gen_ai.usage.num_sequences': 2,
      'lorikeet.adapter': 'a',
      'lorikeet.usage.cached_tokens': 3,
    })
    const near = (name: string, seconds: number) => {
      const value = attributes[name]
      assert.ok(typeof value === 'number' && Math.abs(value - seconds) < 1e-6, `${name} is ${value}`)
    }
    near('gen_ai.latency.time_in_queue', 0)
    near('gen_ai.latency.time_to_first_token', 0.005)
    near('gen_ai.latency.time_in_model_prefill', 0.005)
    near('gen_ai.latency.time_in_model_decode', 0.004)
    near('gen_ai.latency.time_in_model_inference', 0.009)
    near('gen_ai.latency.e2e', 0.01)
    near('lorikeet.latency.time_waiting_for_adapter', 0)
  })

  it('begin where the client names none, or a bad one, and name themselves to it', async () => {
    const tracer = createTracer(`${collector.url}/v1/traces`)
    const harness = await startHarness({ tracer, script: () => [300] })
    const answers = [
      await harness.post('/v1/completions', { prompt: 'x', max_tokens: 1 }),
      await harness.post('/v1/completions', { prompt: 'x', max_tokens: 1 }, { traceparent: 'nonsense' }),
      await harness.stream('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], max_tokens: 1 }),
    ]
    await tracer.shutdown()
    await harness.close()
    assert.equal(collector.spans.length, 3)
    assert.equal(new Set(collector.spans.map((span) => span.traceId)).size, 3)
    for (const span of collector.spans) assert.equal(span.parentSpanId, '')
    assert.deepEqual(
      answers.map((answer) => answer.headers['traceparent']).sort(),
      collector.spans.map((span) => `00-${span.traceId}-${span.spanId}-01`).sort(),
    )
  })

  it('follow the decision of the client not to sample', async () => {
    const tracer = createTracer()
    const harness = await startHarness({ tracer, script: () => [300] })
    const answer = await harness.post(
      '/v1/completions',
      { prompt: 'x', max_tokens: 1 },
      { traceparent: traceparent.replace(/1$/, '0') },
    )
    await tracer.shutdown()
    await harness.close()
    assert.deepEqual(collector.spans, [])
    assert.match(String(answer.headers['traceparent']), new RegExp(`^00-${TRACE_ID}-[0-9a-f]{16}-00$`))
  })

  it('say what failed, and that a client left', async () => {
    const tracer = createTracer()
    const failing = await startHarness({ tracer, failure: new LorikeetError('BACKEND_FAILED', { backend: 'x', detail: 'y' }) })
    const answer = await failing.post('/v1/completions', { prompt: 'x' })
    assert.equal(answer.status, 500)
    assert.ok(answer.headers['traceparent'])
    await failing.close()
    const harness = await startHarness({ tracer })
    const address = await harness.server.listen()
    const response = await fetch(`${address}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'x', stream: true, max_tokens: 400 }),
    })
    await response.body?.cancel()
    await harness.close()
    await tracer.shutdown()
    const [failed, left] = collector.spans
    // STATUS_CODE_ERROR
    assert.deepEqual([failed?.statusCode, failed?.attributes['error.type']], [2, 'BACKEND_FAILED'])
    assert.deepEqual(failed?.attributes['gen_ai.response.finish_reasons'], ['error'])
    assert.deepEqual([left?.statusCode, left?.attributes['gen_ai.response.finish_reasons']], [0, ['abort']])
  })

  it('take and give their context in the metadata of gRPC', async () => {
    const tracer = createTracer()
    const harness = await startGrpcHarness({ tracer, script: () => [300] })
    const request = generateRequest({ text: 'x', stopping: { maxTokens: 1 } })
    const given = metadata({ traceparent })
    const unary = new Promise<unknown>((resolve) => {
      harness.inference
        .generate(request, given, () => {})
        .once('metadata', (initial: Metadata) => resolve(initial.get('traceparent')[0]))
    })
    const stream = harness.inference.generateStream(request, given)
    const streamed = new Promise<unknown>((resolve) => {
      stream.once('metadata', (initial: Metadata) => resolve(initial.get('traceparent')[0]))
    })
    await collect(stream)
    const told = [await unary, await streamed]
    await harness.close()
    await tracer.shutdown()
    assert.deepEqual(collector.spans.map((span) => `00-${TRACE_ID}-${span.spanId}-01`).sort(), told.map(String).sort())
    for (const span of collector.spans) assert.deepEqual([span.traceId, span.parentSpanId], [TRACE_ID, PARENT_ID])
    assert.equal(collector.spans.length, 2)
  })

  it('cost no request when the collector is gone', async () => {
    const tracer = createTracer('http://127.0.0.1:9', 50)
    const harness = await startHarness({ tracer, script: () => [300] })
    assert.equal((await harness.post('/v1/completions', { prompt: 'x', max_tokens: 1 })).status, 200)
    await tracer.shutdown()
    await harness.close()
  })
})

describe('a server without traces', () => {
  it('sends no header', async () => {
    const harness = await startHarness({ script: () => [300] })
    const answer = await harness.post('/v1/completions', { prompt: 'x', max_tokens: 1 }, { traceparent })
    await harness.close()
    assert.equal(answer.headers['traceparent'], undefined)
  })

  it('loads no OpenTelemetry', () => {
    const loaded = loadedWith('src/main.ts')
    assert.ok(loaded.has('src/server/generation/generations.ts'), 'the imports were followed')
    assert.deepEqual(
      [...loaded].filter((file) => file.startsWith('src/server/tracing/') || file.startsWith('@opentelemetry/')),
      [],
    )
  })
})

/** Files and packages that static imports reach. */
function loadedWith(entry: string): Set<string> {
  const rootFolder = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
  const reached = new Set<string>()
  const visit = (file: string): void => {
    if (reached.has(file)) return
    reached.add(file)
    if (!file.startsWith('src/')) return
    const text = readFileSync(resolve(rootFolder, file), 'utf8')
    for (const [, clause = '', specifier = ''] of text.matchAll(/^import\s([^'"]*?from\s+)?['"]([^'"]+)['"]/gm)) {
      const isErased = /^type\s/.test(clause) || /^\{(\s*type\s[^,}]+,?)+\s*\}/.test(clause)
      if (isErased) continue
      visit(specifier.startsWith('.') ? resolve('/', dirname(file), specifier).slice(1) : specifier)
    }
  }
  visit(entry)
  return reached
}
