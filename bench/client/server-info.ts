// What a run must know of the server under test, asked over its public routes: models, adapters, context, token ids.
import { LorikeetError } from '../../src/errors.ts'
import { fetchJson, fetchText, type Target } from './target.ts'

export interface ServerInfo {
  readonly baseModel: string
  /** Names listed with a parent, in the server's order. */
  readonly adapters: readonly string[]
  readonly maxModelLen: number | null
  /** Tokens an adapter's prompts and answers may have where that is less: prompt tuning takes part of the context. */
  readonly maxModelLenOf: Readonly<Record<string, number>>
  /** Ids of ordinary text by the served tokenizer; empty when prompts must be words. */
  readonly tokenPool: readonly number[]
  /** Where the ids came from, for the result file. */
  readonly tokenSource: 'tokenize' | 'vocabulary' | 'words'
  readonly version: string | null
}

interface ModelCard {
  readonly id?: unknown
  readonly owned_by?: unknown
  readonly parent?: unknown
  readonly max_model_len?: unknown
}

const POLL_MS = 250

/** Waits until the health route, or failing that the model list, answers; throws BENCH_FAILED after the timeout. */
export async function waitUntilReady(target: Target, timeoutS: number, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + timeoutS * 1000
  let last = ''
  for (;;) {
    const health = await fetchText(target, 'GET', '/health', undefined, 5000)
    if (health.status === 200) return
    // Hosted APIs have no health route.
    if (health.status === 404 && (await fetchText(target, 'GET', '/v1/models')).status === 200) return
    last = health.status === 0 ? health.body : `status ${health.status}`
    if (signal.aborted || performance.now() > deadline) {
      throw new LorikeetError('BENCH_FAILED', {
        reason: `no healthy server at ${target.url.href} (${last}). Start one with \`npm start\`, or name it with --base-url`,
      })
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

/** Text whose tokens make the pool: plain prose, so that no id is a control token. */
const POOL_TEXT =
  'Once upon a time there was a little girl who lived with her mother near the big green forest. One day she saw a bird ' +
  'with a red hat and asked why it was so sad. The bird said that its friend had lost a shiny stone by the river, and ' +
  'they went together to look for it. They found a boat, two fish, an old dog, some cake and a box of toys. Everyone was ' +
  'happy, and they played in the sun until it was time to go home. "Thank you," said the bird, "you are very kind!"'

/** Ids below this are control tokens in most vocabularies; used only when there is no tokenizer to ask. */
const FIRST_ORDINARY_ID = 16

/** Vocabulary assumed when nothing tells: every model has more. */
const SMALLEST_VOCABULARY = 256

export async function readServerInfo(
  target: Target,
  wanted: { readonly model: string | null; readonly promptFormat: 'auto' | 'ids' | 'text'; readonly isChat: boolean },
): Promise<ServerInfo> {
  const list = (await fetchJson(target, 'GET', '/v1/models')) as { data?: readonly ModelCard[] } | null
  const cards = list?.data ?? []
  const base = cards.find((card) =>
    wanted.model === null ? card.parent === null || card.parent === undefined : card.id === wanted.model,
  )
  const baseModel = wanted.model ?? (typeof base?.id === 'string' ? base.id : null)
  if (baseModel === null) {
    throw new LorikeetError('BENCH_FAILED', { reason: 'the server lists no model under /v1/models: name one with --model' })
  }
  const version = ((await fetchJson(target, 'GET', '/version')) as { version?: unknown } | null)?.version
  const maxModelLen = typeof base?.max_model_len === 'number' ? base.max_model_len : null
  return {
    baseModel,
    adapters: cards.filter((card) => typeof card.parent === 'string').map((card) => String(card.id)),
    maxModelLen,
    maxModelLenOf: maxModelLen === null ? {} : await readAdapterContexts(target, cards, maxModelLen),
    ...(await readTokenPool(target, baseModel, wanted.promptFormat, wanted.isChat)),
    version: typeof version === 'string' ? version : null,
  }
}

/** Adapters asked at a time. */
const PROBE_CONCURRENCY = 8

/**
 * The context each adapter leaves. A card may say it; Lorikeet says it when a request asks for too much, which costs no
 * computation. Other servers are not probed.
 */
async function readAdapterContexts(
  target: Target,
  cards: readonly ModelCard[],
  maxModelLen: number,
): Promise<Readonly<Record<string, number>>> {
  const contexts: Record<string, number> = {}
  const adapters = cards.filter((card) => typeof card.parent === 'string')
  const waiting = [...adapters]
  const worker = async (): Promise<void> => {
    for (let card = waiting.shift(); card !== undefined; card = waiting.shift()) {
      const name = String(card.id)
      if (typeof card.max_model_len === 'number') contexts[name] = card.max_model_len
      else if (card.owned_by === 'lorikeet') {
        const probe = { model: name, prompt: [1], max_tokens: maxModelLen + 1 }
        const { body } = await fetchText(target, 'POST', '/v1/completions', probe)
        const virtualTokens = /(\d+) virtual tokens/.exec(body)?.[1]
        if (virtualTokens !== undefined) contexts[name] = maxModelLen - Number(virtualTokens)
      }
    }
  }
  await Promise.all(Array.from({ length: PROBE_CONCURRENCY }, worker))
  return contexts
}

type TokenPool = Pick<ServerInfo, 'tokenPool' | 'tokenSource'>

async function readTokenPool(
  target: Target,
  model: string,
  format: 'auto' | 'ids' | 'text',
  isChat: boolean,
): Promise<TokenPool> {
  if (format === 'text' || isChat) return { tokenPool: [], tokenSource: 'words' }
  const ids = await tokenize(target, model, POOL_TEXT)
  if (ids !== null && ids.length > 0) {
    // The first id may be the tokenizer's beginning-of-text token.
    return { tokenPool: [...new Set(ids.slice(1))], tokenSource: 'tokenize' }
  }
  const size = await probeVocabulary(target, model)
  if (size === null && format === 'auto') return { tokenPool: [], tokenSource: 'words' }
  const count = (size ?? SMALLEST_VOCABULARY) - FIRST_ORDINARY_ID
  return { tokenPool: Array.from({ length: count }, (_, index) => index + FIRST_ORDINARY_ID), tokenSource: 'vocabulary' }
}

/** Ids of a text, or null when the server has no such route or no tokenizer. */
export async function tokenize(target: Target, model: string, prompt: string): Promise<readonly number[] | null> {
  const answer = (await fetchJson(target, 'POST', '/tokenize', { model, prompt, add_special_tokens: true })) as {
    tokens?: unknown
  } | null
  const tokens = answer?.tokens
  return Array.isArray(tokens) && tokens.every((id) => Number.isSafeInteger(id)) ? tokens : null
}

const LARGEST_INT32 = 2_147_483_647

/** An id that no vocabulary has: the refusal of Lorikeet says how many tokens there are; any other 400 says that ids are taken. */
async function probeVocabulary(target: Target, model: string): Promise<number | null> {
  const { status, body } = await fetchText(target, 'POST', '/v1/completions', { model, prompt: [LARGEST_INT32], max_tokens: 1 })
  if (status !== 400) return null
  const size = /this model has (\d+) tokens/.exec(body)?.[1]
  if (size !== undefined) return Number(size)
  return body.includes('out of vocabulary') ? SMALLEST_VOCABULARY : null
}

const GAUGE = /^vllm:num_requests_(running|waiting)(?:\{[^}]*\})?\s+([0-9.eE+-]+)/gm

/** The queue as the server's own gauges tell it, summed over engines; null when it has none. */
export async function readQueue(target: Target): Promise<{ readonly numRunning: number; readonly numWaiting: number } | null> {
  const { status, body } = await fetchText(target, 'GET', '/metrics', undefined, 2000)
  if (status !== 200) return null
  const sums = { running: 0, waiting: 0 }
  let found = false
  for (const [, name, value] of body.matchAll(GAUGE)) {
    sums[name as 'running' | 'waiting'] += Number(value)
    found = true
  }
  return found ? { numRunning: sums.running, numWaiting: sums.waiting } : null
}
