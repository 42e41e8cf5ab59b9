// Nothing a client sends brings the server down or gets an answer that blames the server.

import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { adapterCases } from '../support/demo-cases.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

let server: ServerProcess
const directory = mkdtempSync(join(tmpdir(), 'lorikeet-'))

before(async () => {
  const adapter = `pirate=${join(DEMO_ADAPTERS, 'pirate')}`
  server = await ServerProcess.start([
    ...['--model', DEMO_MODEL, '--served-model-name', 'stories', '--backend', 'reference', '--adapter', adapter],
    ...['--allow-runtime-lora-updating', '--body-limit', '1MiB'],
  ])
})
after(async () => {
  rmSync(directory, { recursive: true })
  assert.equal(await server.stop(), 0)
})

interface ErrorAnswer {
  readonly status: number
  readonly error: { message: string; type: string; param: string | null; code: number }
}

async function post(path: string, body: string): Promise<{ status: number; json: unknown; text: string }> {
  const response = await fetch(server.url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  const text = await response.text()
  return { status: response.status, text, json: text.startsWith('{') ? JSON.parse(text) : null }
}

async function refused(path: string, body: unknown): Promise<ErrorAnswer> {
  const { status, json, text } = await post(path, typeof body === 'string' ? body : JSON.stringify(body))
  assert.ok(status >= 400, `${status} ${text}`)
  return { status, error: (json as ErrorAnswer).error }
}

async function stillAnswers(): Promise<void> {
  const [item] = adapterCases('pirate')
  assert.ok(item)
  const { prompt, text, tokenIds } = item
  const body = JSON.stringify({ model: 'pirate', prompt, max_tokens: tokenIds.length, temperature: 0 })
  const answer = (await post('/v1/completions', body)).json as { choices: { text: string }[] }
  assert.equal(answer.choices[0]?.text, text)
  assert.equal((await fetch(`${server.url}/health`)).status, 200)
}

const requests: [string, unknown, number, string, string | null, RegExp][] = [
  ['not JSON', '{', 400, 'Bad Request', null, /JSON/],
  ['an empty prompt', { prompt: '' }, 400, 'Bad Request', 'prompt', /empty/],
  ['ids out of vocabulary', { prompt: [512] }, 400, 'BadRequestError', 'prompt', /out of vocabulary/],
  [
    'a prompt over the context',
    { prompt: Array(600).fill(5) },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length is 512/,
  ],
  [
    'text over the context',
    { prompt: 'big '.repeat(100_000) },
    400,
    'BadRequestError',
    'prompt',
    /maximum context length is 512/,
  ],
  ['an unknown adapter', { prompt: 'x', model: 'nobody' }, 404, 'NotFoundError', 'model', /does not exist/],
  ['a huge body', { prompt: 'x'.repeat(2 << 20) }, 413, 'Payload Too Large', null, /1048576 bytes/],
  ['deep nesting', `{"prompt": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 400, 'Bad Request', 'prompt', /mix/],
  ['a text without characters', { prompt: '\ud800' }, 200, '', null, /./],
]
for (const [name, body, status, type, param, words] of requests) {
  test(`request: ${name}`, async () => {
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    if (status === 200) {
      assert.equal((await post('/v1/completions', text)).status, 200)
    } else {
      const answer = await refused('/v1/completions', text)
      assert.deepEqual([answer.status, answer.error.type, answer.error.param, answer.error.code], [status, type, param, status])
      assert.match(answer.error.message, words)
    }
    await stillAnswers()
  })
}

const WEIGHTS = 'adapter_model.safetensors'
const CONFIG = 'adapter_config.json'

/** A copy of the pirate adapter, changed by `damage`. */
function damaged(name: string, damage: (path: string) => void): string {
  const path = join(directory, name)
  cpSync(join(DEMO_ADAPTERS, 'pirate'), path, { recursive: true })
  damage(path)
  return path
}

function editBytes(path: string, edit: (bytes: Buffer) => Buffer): void {
  const file = join(path, WEIGHTS)
  writeFileSync(file, edit(readFileSync(file)))
}

function editConfig(path: string, change: object): void {
  const file = join(path, CONFIG)
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change }))
}

const adapters: [string, (path: string) => void, number][] = [
  ['no weights', (path) => rmSync(join(path, WEIGHTS)), 400],
  ['no config', (path) => rmSync(join(path, CONFIG)), 400],
  ['nothing in its directory', (path) => [CONFIG, WEIGHTS].forEach((file) => void rmSync(join(path, file))), 404],
  ['truncated weights', (path) => truncateSync(join(path, WEIGHTS), 20_000), 400],
  ['empty weights', (path) => truncateSync(join(path, WEIGHTS), 0), 400],
  ['a header longer than the file', (path) => editBytes(path, (bytes) => bytes.fill(0x10, 0, 8)), 400],
  ['a header that is no JSON', (path) => editBytes(path, (bytes) => bytes.fill(0x7b, 8, 40)), 400],
  ['NaN weights', (path) => editBytes(path, (bytes) => bytes.fill(0xff, bytes.length - 64)), 400],
  ['a config that is no JSON', (path) => writeFileSync(join(path, CONFIG), '{'), 400],
  ['rank 0', (path) => editConfig(path, { r: 0 }), 400],
  ['a rank the weights do not have', (path) => editConfig(path, { r: 3 }), 400],
  ['an unknown method', (path) => editConfig(path, { peft_type: 'MAGIC' }), 400],
  [
    'modules of another model',
    (path) => editBytes(path, (bytes) => Buffer.from(bytes.toString('latin1').replaceAll('layers.0', 'layers.9'), 'latin1')),
    400,
  ],
]
for (const [name, damage, status] of adapters) {
  test(`adapter with ${name}`, async () => {
    const path = damaged(name, damage)
    const answer = await refused('/v1/load_lora_adapter', { lora_name: 'bad', lora_path: path })
    assert.equal(answer.status, status, answer.error.message)
    assert.ok(answer.error.message.length > 20, answer.error.message)
    assert.equal((await refused('/v1/completions', { model: 'bad', prompt: 'x' })).status, 404)
    await stillAnswers()
  })
}

test('random bodies never get a 5xx', async () => {
  const values = [null, true, -1, 0, 1, 2.5, 1e300, '', 'x', [], [1], ['a'], [null], {}, { a: 1 }, [[1]]]
  const names = [
    ...['prompt', 'model', 'max_tokens', 'temperature', 'top_p', 'top_k', 'n', 'stop', 'stream', 'stream_options', 'logprobs'],
    ...['echo', 'logit_bias', 'seed', 'min_tokens', 'stop_token_ids', 'allowed_token_ids', 'bad_words', 'best_of', 'priority'],
    ...['prompt_logprobs', 'truncate_prompt_tokens', 'cache_salt', 'response_format', 'messages', 'tools', 'documents'],
  ]
  let state = 7
  const pick = <T>(list: readonly T[]): T => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return list[(state >>> 8) % list.length] as T
  }
  for (let round = 0; round < 150; round++) {
    const body: Record<string, unknown> = { prompt: 'One day', messages: [{ role: 'user', content: 'x' }], max_tokens: 2 }
    for (let i = 0; i <= round % 3; i++) body[pick(names)] = pick(values)
    const path = pick(['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize', '/v1/load_lora_adapter'])
    const { status, text } = await post(path, JSON.stringify(body))
    assert.ok(status < 500, `${status} ${path} ${JSON.stringify(body)} ${text}`)
  }
  await stillAnswers()
})
