// Hugging Face's inference client, which speaks the dialect of LoRAX and Text Generation Inference, as a black-box client.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { InferenceClient } from '@huggingface/inference'
import { API_KEY, abortedCall, BASE, BASE_NAME, NUM_BASE_TOKENS, PIRATE, startClientServer } from '../support/client-server.ts'
import { DEMO_ADAPTERS, type ServerProcess } from '../support/server-process.ts'

type TextGenerationArgs = Parameters<InferenceClient['textGeneration']>[0]

const client = new InferenceClient(API_KEY)
const NO_RETRY = { retry_on_error: false }
let server: ServerProcess
before(async () => {
  server = await startClientServer('--allow-runtime-lora-updating', '--allowed-lora-path-prefix', DEMO_ADAPTERS)
})
after(() => server.stop())

/** What LoRAX adds to the parameters that the client has types for. */
interface LoraxParameters {
  readonly adapter_id?: string
  readonly adapter_source?: string
}

function args(inputs: string, parameters: TextGenerationArgs['parameters'] & LoraxParameters): TextGenerationArgs {
  return { endpointUrl: `${server.url}/`, inputs, parameters }
}

test('the base model and an adapter', async () => {
  const base = await client.textGeneration(args(BASE.prompt, { max_new_tokens: NUM_BASE_TOKENS }), NO_RETRY)
  assert.ok(base.generated_text !== '' && BASE.text.startsWith(base.generated_text))
  const parameters = { adapter_id: 'pirate', max_new_tokens: PIRATE.tokenIds.length, return_full_text: true, details: true }
  const pirate = await client.textGeneration(args(PIRATE.prompt, parameters), NO_RETRY)
  assert.equal(pirate.generated_text, PIRATE.prompt + PIRATE.text)
  assert.deepEqual(
    pirate.details?.tokens.map(({ id }) => id),
    PIRATE.tokenIds,
  )
  assert.equal(pirate.details?.finish_reason, 'length')
})

test('an adapter is loaded from its directory with the request', async () => {
  const folder = join(DEMO_ADAPTERS, 'robot')
  const parameters = { adapter_id: folder, adapter_source: 'local', max_new_tokens: 8 }
  const { generated_text: text } = await client.textGeneration(args('One day', parameters), NO_RETRY)
  assert.notEqual(text, '')
  const listed = (await (await fetch(`${server.url}/v1/models/${encodeURIComponent(folder)}`, authorized())).json()) as {
    root: string
  }
  assert.equal(listed.root, folder)
})

test('a stream of tokens ends with the whole text', async () => {
  const parameters = { adapter_id: 'pirate', max_new_tokens: PIRATE.tokenIds.length, details: true }
  let text = ''
  let whole: string | null = null
  let numTokens = 0
  for await (const event of client.textGenerationStream(args(PIRATE.prompt, parameters), NO_RETRY)) {
    text += event.token.text
    whole = event.generated_text
    numTokens++
    assert.equal(event.token.special, false)
    assert.ok(event.token.logprob <= 0)
  }
  assert.equal(numTokens, PIRATE.tokenIds.length)
  assert.equal(text, PIRATE.text)
  assert.equal(whole, PIRATE.text)
})

test('chat, which it sends to the OpenAI route', async () => {
  const answer = await client.chatCompletion(
    {
      endpointUrl: `${server.url}/v1/chat/completions`,
      model: 'pirate',
      messages: [{ role: 'user', content: PIRATE.prompt }],
      max_tokens: 8,
      temperature: 0,
    },
    NO_RETRY,
  )
  assert.equal(answer.model, 'pirate')
  assert.equal(answer.usage.completion_tokens, 8)
})

test('leaving a stream ends it in the server', async () => {
  const controller = new AbortController()
  const stream = client.textGenerationStream(args('One day', { max_new_tokens: 400, do_sample: true }), {
    ...NO_RETRY,
    signal: controller.signal,
  })
  await assert.rejects(async () => {
    for await (const _ of stream) controller.abort()
  })
  assert.ok((await abortedCall(server)) < 400)
})

test('errors are told in its words', async () => {
  const failsWith = (parameters: Parameters<typeof args>[1], message: RegExp) =>
    assert.rejects(client.textGeneration(args('x', parameters), NO_RETRY), message)
  await failsWith({ adapter_id: 'nobody' }, /`nobody` does not exist/)
  await failsWith({ watermark: true }, /parameters.watermark is not supported/)
  await failsWith({ adapter_id: '/etc', adapter_source: 'local' }, /outside the directories/)
  await assert.rejects(new InferenceClient('wrong').textGeneration(args('x', {}), NO_RETRY), /Incorrect API key/)
  const refused = await fetch(`${server.url}/generate`, { ...authorized(), method: 'POST', body: '{"inputs":""}' })
  assert.equal(refused.status, 422)
  assert.deepEqual(Object.keys((await refused.json()) as object), ['error', 'error_type'])
})

test('/info names the model', async () => {
  const info = (await (await fetch(`${server.url}/info`, authorized())).json()) as { model_id: string }
  assert.equal(info.model_id, BASE_NAME)
})

function authorized(): { headers: Record<string, string> } {
  return { headers: { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' } }
}
