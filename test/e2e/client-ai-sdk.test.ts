// Vercel's AI SDK as a black-box client.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, generateText, type LanguageModel, streamText } from 'ai'
import { API_KEY, abortedCall, BASE, BASE_NAME, NUM_BASE_TOKENS, PIRATE, startClientServer } from '../support/client-server.ts'
import type { ServerProcess } from '../support/server-process.ts'

let server: ServerProcess
before(async () => {
  server = await startClientServer()
})
after(() => server.stop())

const provider = (apiKey = API_KEY) =>
  createOpenAICompatible({ name: 'lorikeet', baseURL: `${server.url}/v1`, apiKey, includeUsage: true })
const settings = { temperature: 0, maxRetries: 0, maxOutputTokens: PIRATE.tokenIds.length }
const ask = (model: LanguageModel) => ({ ...settings, model, prompt: PIRATE.prompt })

test('completions of the base model and of an adapter', async () => {
  const base = await generateText({
    ...settings,
    model: provider().completionModel(BASE_NAME),
    prompt: BASE.prompt,
    maxOutputTokens: NUM_BASE_TOKENS,
  })
  assert.notEqual(base.text, '')
  const pirate = await generateText(ask(provider().completionModel('pirate')))
  assert.notEqual(pirate.text, base.text)
  assert.equal(pirate.usage.outputTokens, PIRATE.tokenIds.length)
  assert.equal(pirate.finishReason, 'length')
})

test('a chat message, whole and streamed, with usage', async () => {
  const whole = await generateText(ask(provider()('pirate')))
  assert.equal(whole.response.modelId, 'pirate')
  const streamed = streamText(ask(provider()('pirate')))
  const pieces: string[] = []
  for await (const piece of streamed.textStream) pieces.push(piece)
  assert.ok(pieces.length > 10)
  assert.equal(pieces.join(''), whole.text)
  assert.equal((await streamed.usage).outputTokens, PIRATE.tokenIds.length)
  assert.equal(await streamed.finishReason, 'length')
})

test('stop sequences, seeds and roles', async () => {
  const answer = await generateText({
    ...settings,
    model: provider()('pirate'),
    messages: [
      { role: 'system', content: 'Once upon' },
      { role: 'user', content: [{ type: 'text', text: ' a time' }] },
    ],
    stopSequences: ['.'],
  })
  assert.doesNotMatch(answer.text, /\./)
  const seeded = () => generateText({ ...ask(provider()(BASE_NAME)), temperature: 1, seed: 3, maxOutputTokens: 12 })
  assert.equal((await seeded()).text, (await seeded()).text)
})

test('leaving a stream ends it in the server', async () => {
  const controller = new AbortController()
  const stream = streamText({
    ...ask(provider()(BASE_NAME)),
    maxOutputTokens: 400,
    abortSignal: controller.signal,
    onError: () => {},
  })
  for await (const _ of stream.textStream) controller.abort()
  assert.ok((await abortedCall(server)) < 400)
})

test('errors tell status and message', async () => {
  const failsWith = (model: LanguageModel, extra: object, status: number, message: RegExp) =>
    assert.rejects(generateText({ ...ask(model), ...extra }), (error) => {
      assert.ok(APICallError.isInstance(error))
      assert.equal(error.statusCode, status)
      assert.match(error.message, message)
      assert.equal(error.isRetryable, false)
      return true
    })
  await failsWith(provider()('nobody'), {}, 404, /`nobody` does not exist/)
  await failsWith(provider('wrong')('pirate'), {}, 401, /Incorrect API key/)
  await failsWith(provider()('pirate'), { topP: 7 }, 400, /top_p/)
  await failsWith(provider()('pirate'), { maxOutputTokens: 100_000 }, 400, /maximum context length/)
})
