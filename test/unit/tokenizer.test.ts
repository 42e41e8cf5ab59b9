import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { loadTextModel } from '../../src/tokenizer/text-model.ts'
import { Tokenizer } from '../../src/tokenizer/tokenizer.ts'
import { byteLevelTokenizerJson } from '../support/byte-level-tokenizer.ts'
import { scratchFolder } from '../support/scratch-folder.ts'

const DEMO = new URL('../../demo/', import.meta.url)
const readJson = (path: string) => JSON.parse(readFileSync(new URL(path, DEMO), 'utf8'))
const demoTokenizer = () => new Tokenizer(readJson('model/tokenizer.json'), readJson('model/tokenizer_config.json'))
const SKIP = { skipSpecialTokens: true }

test('demo prompts encode and outputs decode exactly as Hugging Face does', () => {
  const tokenizer = demoTokenizer()
  const base = readJson('model/expected.json')
  assert.deepEqual(tokenizer.encode(base.prompt, true), base.prompt_ids)
  assert.equal(tokenizer.decode(base.greedy_200_ids, SKIP), base.text)
  const adapters = readdirSync(new URL('adapters/', DEMO))
  assert.equal(adapters.length, 11)
  for (const adapter of adapters) {
    for (const item of readJson(`adapters/${adapter}/expected.json`).cases) {
      assert.deepEqual(tokenizer.encode(item.prompt, true), item.prompt_ids, `${adapter}: ${item.prompt}`)
      assert.deepEqual([1, ...tokenizer.encode(item.prompt, false)], item.prompt_ids)
      assert.equal(tokenizer.decode(item.token_ids, SKIP), item.text, `${adapter}: ${item.prompt}`)
    }
  }
})

test('special tokens are kept on request and skipped by default', () => {
  const tokenizer = demoTokenizer()
  assert.equal(tokenizer.decode([1, 403, 2], SKIP), 'Once')
  assert.equal(tokenizer.decode([1, 403, 2], { skipSpecialTokens: false }), '<s> Once</s>')
})

test('token texts concatenate to the text, and parts of characters stay distinct', () => {
  const tokenizer = demoTokenizer()
  const ids = tokenizer.encode('One day 😀', false)
  const bytes = ids.flatMap((id) => [...tokenizer.tokenBytes(id)])
  assert.equal(Buffer.from(bytes).toString(), ' One day 😀')
  assert.equal(tokenizer.tokenText(ids.at(-1) ?? 0), 'bytes:\\x80')
  assert.equal(tokenizer.tokenString(403), '▁Once')
})

test('an id without a token has no text', () => {
  const tokenizer = demoTokenizer()
  assert.equal(tokenizer.tokenText(100_000), '')
  assert.equal(tokenizer.decode([100_000, -1], SKIP), '')
})

test('byte-level vocabularies round-trip any text', () => {
  const tokenizer = new Tokenizer(byteLevelTokenizerJson(), {})
  for (const text of ['hello', ' two  blanks ', 'naïve ☕ 漢字 😀\n\ttab', '\u0000\u001f\u007f\u00ad']) {
    assert.equal(tokenizer.decode(tokenizer.encode(text, false), SKIP), text)
  }
  assert.equal(tokenizer.decode(tokenizer.encode('a<|end|>b', false), SKIP), 'ab')
})

test('an unknown decoder and broken files are refused, naming the file', async () => {
  const wordPiece = { ...byteLevelTokenizerJson(), decoder: { type: 'WordPiece', prefix: '##' } }
  assert.throws(() => new Tokenizer(wordPiece, {}), { code: 'MODEL_UNSUPPORTED' })
  assert.throws(() => new Tokenizer({}, {}), { code: 'MODEL_INVALID' })
  const huge = { ...byteLevelTokenizerJson(), model: { type: 'BPE', vocab: { a: 1e12 }, merges: [] } }
  assert.throws(() => new Tokenizer(huge, {}), { code: 'MODEL_INVALID' })
  const directory = scratchFolder()
  await writeFile(join(directory, 'tokenizer.json'), '{"model"')
  await assert.rejects(
    loadTextModel(directory, { chatTemplate: null, useGenerationConfig: true }),
    (error) => error instanceof LorikeetError && error.code === 'MODEL_INVALID' && error.message.includes('tokenizer.json'),
  )
})

test('a directory without tokenizer files gives no tokenizer but still its end ids', async () => {
  const directory = scratchFolder()
  await writeFile(join(directory, 'config.json'), '{"eos_token_id": [7, 9]}')
  const text = await loadTextModel(directory, { chatTemplate: null, useGenerationConfig: true })
  assert.equal(text.tokenizer, null)
  assert.equal(text.chatTemplate, null)
  assert.deepEqual(text.eosTokenIds, [7, 9])
})

test('generation_config gives defaults unless switched off; values out of range are left out', async () => {
  const directory = scratchFolder()
  const config = { temperature: 0.6, top_p: 0, top_k: 20, max_new_tokens: 64, eos_token_id: 3 }
  await writeFile(join(directory, 'generation_config.json'), JSON.stringify(config))
  const on = await loadTextModel(directory, { chatTemplate: null, useGenerationConfig: true })
  assert.equal(on.generationDefaults.temperature, 0.6)
  assert.equal(on.generationDefaults.topP, null)
  assert.equal(on.generationDefaults.topK, 20)
  assert.equal(on.generationDefaults.maxNewTokens, 64)
  assert.deepEqual(on.eosTokenIds, [3])
  const off = await loadTextModel(directory, { chatTemplate: null, useGenerationConfig: false })
  assert.equal(off.generationDefaults.temperature, null)
  assert.deepEqual(off.eosTokenIds, [3])
})
