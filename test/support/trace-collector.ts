// A collector of traces in this process: takes OTLP over HTTP, decodes its protobuf, keeps the spans.

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import protobuf from 'protobufjs'

// The fields of opentelemetry/proto/collector/trace/v1 that the tests read, by their numbers.
const PROTO = `
syntax = "proto3";
message Request { repeated ResourceSpans resource_spans = 1; }
message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
message Resource { repeated KeyValue attributes = 1; }
message ScopeSpans { repeated Span spans = 2; }
message Span {
  bytes trace_id = 1;
  bytes span_id = 2;
  string trace_state = 3;
  bytes parent_span_id = 4;
  string name = 5;
  int32 kind = 6;
  fixed64 start = 7;
  fixed64 end = 8;
  repeated KeyValue attributes = 9;
  Status status = 15;
}
message Status { string message = 2; int32 code = 3; }
message KeyValue { string key = 1; Value value = 2; }
message Value { oneof value { string text = 1; bool flag = 2; int64 integer = 3; double number = 4; Values list = 5; } }
message Values { repeated Value values = 1; }
`

type AttributeValue = string | number | boolean | AttributeValue[]

export interface CollectedSpan {
  readonly name: string
  readonly kind: number
  readonly traceId: string
  readonly spanId: string
  /** '' = root. */
  readonly parentSpanId: string
  readonly traceState: string
  readonly durationMs: number
  readonly attributes: Readonly<Record<string, AttributeValue>>
  readonly resource: Readonly<Record<string, AttributeValue>>
  readonly statusCode: number
}

interface RawValue {
  text?: string
  flag?: boolean
  integer?: string
  number?: number
  list?: { values: RawValue[] }
}

type RawAttributes = readonly { key: string; value: RawValue }[]

interface RawSpan {
  name: string
  kind: number
  traceId: Buffer
  spanId: Buffer
  parentSpanId?: Buffer
  traceState?: string
  start: string
  end: string
  attributes?: RawAttributes
  status?: { code?: number }
}

interface RawRequest {
  resourceSpans: { resource?: { attributes?: RawAttributes }; scopeSpans: { spans: RawSpan[] }[] }[]
}

export class TraceCollector {
  readonly spans: CollectedSpan[] = []
  readonly paths: string[] = []
  readonly #server: Server
  readonly #type = protobuf.parse(PROTO).root.lookupType('Request')

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      this.paths.push(`${request.url} ${request.headers['content-type']}`)
      this.#take(Buffer.concat(chunks))
      response.end()
    })
  }

  static async start(): Promise<TraceCollector> {
    const collector = new TraceCollector()
    collector.#server.listen(0, '127.0.0.1')
    await once(collector.#server, 'listening')
    return collector
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }

  #take(body: Buffer): void {
    const { resourceSpans } = this.#type.toObject(this.#type.decode(body), { longs: String, arrays: true }) as RawRequest
    for (const { resource, scopeSpans } of resourceSpans) {
      for (const span of scopeSpans.flatMap((scope) => scope.spans)) {
        this.spans.push(collected(span, attributesOf(resource?.attributes ?? [])))
      }
    }
  }
}

function collected(span: RawSpan, resource: CollectedSpan['resource']): CollectedSpan {
  return {
    name: span.name,
    kind: span.kind,
    traceId: span.traceId.toString('hex'),
    spanId: span.spanId.toString('hex'),
    parentSpanId: span.parentSpanId?.toString('hex') ?? '',
    traceState: span.traceState ?? '',
    durationMs: Number(BigInt(span.end) - BigInt(span.start)) / 1e6,
    attributes: attributesOf(span.attributes ?? []),
    resource,
    statusCode: span.status?.code ?? 0,
  }
}

function attributesOf(raw: RawAttributes): Record<string, AttributeValue> {
  return Object.fromEntries(raw.map(({ key, value }) => [key, attributeValue(value)]))
}

function attributeValue({ text, flag, integer, number, list }: RawValue): AttributeValue {
  if (list !== undefined) return list.values.map(attributeValue)
  return integer !== undefined ? Number(integer) : (text ?? number ?? flag ?? '')
}
