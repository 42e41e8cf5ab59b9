// LangChain's OpenAI integration as a black-box client.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ChatOpenAI, type ChatOpenAIFields, OpenAI } from '@langchain/openai'
import { API_KEY, abortedCall, BASE, BASE_NAME, NUM_BASE_TOKENS, PIRATE, startClientServer } from '../support/client-server.ts'
import type { ServerProcess } from '../support/server-process.ts'

let server: ServerProcess
before(async () => {
  server = await startClientServer()
})
after(() => server.stop())

function options(model: string, maxTokens: number, apiKey = API_KEY): ChatOpenAIFields {
  return { model, apiKey, temperature: 0, maxTokens, maxRetries: 0, configuration: { baseURL: `${server.url}/v1` } }
}
/** Its declarations lose the type of this member. */
function numOutputTokensOf(message: { readonly usage_metadata?: unknown }): number {
  return (message.usage_metadata as { output_tokens: number } | undefined)?.output_tokens ?? 0
}
const chat = (model = 'pirate', maxTokens = PIRATE.tokenIds.length) => new ChatOpenAI(options(model, maxTokens))

test('completions of the base model and of an adapter', async () => {
  const base = await new OpenAI(options(BASE_NAME, NUM_BASE_TOKENS)).invoke(BASE.prompt)
  assert.ok(base !== '' && BASE.text.startsWith(base))
  assert.equal(await new OpenAI(options('pirate', PIRATE.tokenIds.length)).invoke(PIRATE.prompt), PIRATE.text)
})

test('a chat message, whole and streamed, with usage', async () => {
  const whole = await chat().invoke(PIRATE.prompt)
  assert.equal(numOutputTokensOf(whole), PIRATE.tokenIds.length)
  assert.equal(whole.response_metadata['finish_reason'], 'length')
  let streamed = ''
  let numOutputTokens = 0
  let numChunks = 0
  for await (const chunk of await chat().stream(PIRATE.prompt)) {
    streamed += chunk.text
    numOutputTokens += numOutputTokensOf(chunk)
    numChunks++
  }
  assert.equal(streamed, whole.text)
  assert.equal(numOutputTokens, PIRATE.tokenIds.length)
  assert.ok(numChunks > 10)
})

test('a batch over base and adapter keeps them apart', async () => {
  const [base, pirate] = await Promise.all([
    chat(BASE_NAME).batch(['One day', 'Once upon a time']),
    chat('pirate').batch(['One day', 'Once upon a time']),
  ])
  assert.equal(new Set([...base, ...pirate].map(({ text }) => text)).size, 4)
})

test('logprobs', async () => {
  const answer = await new ChatOpenAI({ ...options('pirate', 3), logprobs: true, topLogprobs: 2 }).invoke('One day')
  const { content } = answer.response_metadata['logprobs'] as { content: { token: string; top_logprobs: object[] }[] }
  assert.equal(content.map(({ token }) => token).join(''), answer.text)
  assert.equal(content[0]!.top_logprobs.length, 2)
})

test('leaving a stream ends it in the server', async () => {
  const controller = new AbortController()
  const stream = await chat(BASE_NAME, 400).stream('One day', { signal: controller.signal })
  await assert.rejects(async () => {
    for await (const _ of stream) controller.abort()
  })
  assert.ok((await abortedCall(server)) < 400)
})

test('errors are the exceptions that it knows', async () => {
  const failsWith = (fields: ChatOpenAIFields, status: number, code?: string) =>
    assert.rejects(new ChatOpenAI(fields).invoke('x'), (error: Error & { status?: number; lc_error_code?: string }) => {
      assert.equal(error.status, status, error.message)
      assert.equal(error.lc_error_code, code)
      return true
    })
  await failsWith(options('nobody', 5), 404, 'MODEL_NOT_FOUND')
  await failsWith(options('pirate', 5, 'wrong'), 401, 'MODEL_AUTHENTICATION')
  await failsWith({ ...options('pirate', 5), topP: 7 }, 400)
  await assert.rejects(chat('pirate', 100_000).invoke('x'), /maximum context length/)
})
