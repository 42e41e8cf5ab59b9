import type { AdapterInfo, ModelInfo } from '../engine/messages.ts'
import { formatBytes } from './byte-size.ts'

export interface BannerFacts {
  readonly version: string
  /** Where a client on this machine reaches the server: `http://localhost:8000`, or `unix:/run/lorikeet.sock`. */
  readonly url: string
  /** null = no gRPC. */
  readonly grpcPort: number | null
  readonly needsKey: boolean
  readonly baseName: string
  readonly model: ModelInfo
  readonly adapters: readonly AdapterInfo[]
  readonly refusedAdapters: readonly string[]
  readonly hasTokenizer: boolean
}

/** What a user sees when the server is ready: what runs, what it serves, and three requests to paste. */
export function banner(facts: BannerFacts): string {
  const { model, adapters, refusedAdapters } = facts
  const kvTokens = model.numBlocks * model.blockSize
  const lines = [
    '',
    `Lorikeet ${facts.version} is ready on ${facts.url}${facts.grpcPort === null ? '' : `, gRPC on port ${facts.grpcPort}`}`,
    `  model     ${facts.baseName} (${model.modelType}, backend ${model.backend}, ${model.dtype}), context ${model.maxModelLen}, KV cache for ${kvTokens} tokens`,
    ...adapterLines(adapters),
    // Browsers do not open sockets of the file system.
    ...(facts.url.startsWith('unix:') ? [] : [`  console   ${facts.url}/ in a browser`]),
    ...(refusedAdapters.length === 0 ? [] : [`  refused   ${refusedAdapters.join(', ')} (reasons in the log above)`]),
    '',
    'Try',
    ...examples(facts).map((example) => `  ${example}`),
    '',
  ]
  return `${lines.join('\n')}\n`
}

/** Where a client on this machine reaches a server that listens on `address`. */
export function localUrl(address: string, uds: string | null): string {
  if (uds !== null) return `unix:${uds}`
  const url = new URL(address)
  // Listening on every address is no address to connect to.
  if (['0.0.0.0', '[::]', '127.0.0.1', '[::1]'].includes(url.hostname)) url.hostname = 'localhost'
  return url.origin
}

function adapterLines(adapters: readonly AdapterInfo[]): readonly string[] {
  if (adapters.length === 0) return ['  adapters  none; give some with --adapter NAME=DIR or --adapter-dir DIR']
  const width = Math.max(...adapters.map((adapter) => adapter.name.length))
  return adapters.map((adapter, index) => {
    const label = index === 0 ? 'adapters' : '        '
    const rank = adapter.maxRank > 0 ? `, rank ${adapter.maxRank}` : ''
    return `  ${label}  ${adapter.name.padEnd(width)}  ${adapter.kind}${rank}, ${formatBytes(adapter.numBytes)}`
  })
}

function examples({ url, needsKey, baseName, adapters, hasTokenizer }: BannerFacts): readonly string[] {
  const socket = url.startsWith('unix:') ? url.slice('unix:'.length) : null
  const target = socket === null ? url : 'http://localhost'
  const curl = `curl -s${socket === null ? '' : ` --unix-socket ${socket}`}`
  const key = needsKey ? ' -H "Authorization: Bearer $LORIKEET_API_KEY"' : ''
  const prompt = hasTokenizer ? { prompt: 'Once upon a time' } : { prompt: [1], return_token_ids: true }
  const complete = (flags: string, body: object) =>
    `${curl}${flags} ${target}/v1/completions${key} -H 'content-type: application/json' -d '${quoted(body)}'`
  const [first, last] = [adapters[0]?.name ?? baseName, adapters.at(-1)?.name ?? baseName]
  return [
    complete('', { model: first, ...prompt, max_tokens: 48, temperature: 0 }),
    complete(' -N', { model: last, ...prompt, max_tokens: 48, temperature: 0, stream: true }),
    `${curl} ${target}/v1/models${key}`,
  ]
}

/** JSON inside single quotes of a shell. */
function quoted(body: object): string {
  return JSON.stringify(body).replaceAll("'", `'\\''`)
}
