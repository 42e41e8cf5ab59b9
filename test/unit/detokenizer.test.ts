import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { Detokenizer } from '../../src/tokenizer/detokenizer.ts'
import { StopStrings } from '../../src/tokenizer/stop-strings.ts'
import { Tokenizer } from '../../src/tokenizer/tokenizer.ts'
import { byteLevelTokenizerJson } from '../support/byte-level-tokenizer.ts'

const DEMO = new URL('../../demo/model/', import.meta.url)
const readJson = (path: string) => JSON.parse(readFileSync(new URL(path, DEMO), 'utf8'))
const FILES: [string, object, object][] = [
  ['sentencepiece with byte fallback', readJson('tokenizer.json'), readJson('tokenizer_config.json')],
  ['byte level', byteLevelTokenizerJson(), {}],
]

/** A small seeded generator (mulberry32), so that a failure repeats. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

for (const [name, json, config] of FILES) {
  test(`${name}: streamed pieces equal Hugging Face's decoding of the whole, and never hold half a character`, () => {
    const tokenizer = new Tokenizer(json, config)
    const reference = new HuggingFaceTokenizer(json, config)
    const next = random(1)
    const alphabet = [' ', 'a', 'the ', '\n', 'é', '漢', '😀', '👩‍🚀', 'Lily', '.', '  ']
    for (let round = 0; round < 200; round++) {
      let text = ''
      while (text.length < 1 + next() * 20) text += alphabet[Math.floor(next() * alphabet.length)]
      const ids = tokenizer.encode(text, false)
      const detokenizer = new Detokenizer(tokenizer.table, { skipSpecialTokens: true })
      const pieces = ids.map((id) => detokenizer.push(id))
      assert.ok(!pieces.join('').includes('\ufffd'), text)
      const whole = reference.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false })
      assert.equal(pieces.join('') + detokenizer.flush(), whole)
    }
  })

  test(`${name}: any ids at all stream to the same text as decoding them at once`, () => {
    const tokenizer = new Tokenizer(json, config)
    const reference = new HuggingFaceTokenizer(json, config)
    const next = random(2)
    for (let round = 0; round < 300; round++) {
      const ids = Array.from({ length: 1 + Math.floor(next() * 12) }, () => Math.floor(next() * tokenizer.table.size))
      for (const skipSpecialTokens of [true, false]) {
        const detokenizer = new Detokenizer(tokenizer.table, { skipSpecialTokens })
        let streamed = ''
        for (const id of ids) streamed += detokenizer.push(id)
        streamed += detokenizer.flush()
        assert.equal(streamed, tokenizer.decode(ids, { skipSpecialTokens }))
        const options = { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false }
        assert.equal(streamed, reference.decode(ids, options), JSON.stringify(ids))
      }
    }
  })
}

test('a character that never completes becomes one replacement character at the end', () => {
  const tokenizer = new Tokenizer(byteLevelTokenizerJson(), {})
  const detokenizer = new Detokenizer(tokenizer.table, { skipSpecialTokens: true })
  assert.equal(detokenizer.push(0xf0) + detokenizer.push(0x9f), '')
  assert.equal(detokenizer.flush(), '\ufffd')
  assert.equal(detokenizer.flush(), '')
})

test('a stop string is found across pieces, and text that may begin one is held back', () => {
  const stops = new StopStrings(['END', 'stop here'], false)
  assert.deepEqual(stops.push('abc st'), { text: 'abc ', stop: null })
  assert.deepEqual(stops.push('op'), { text: '', stop: null })
  assert.deepEqual(stops.push(' it'), { text: 'stop it', stop: null })
  assert.deepEqual(stops.push('xE'), { text: 'x', stop: null })
  assert.deepEqual(stops.push('NDyyy'), { text: '', stop: 'END' })
})

test('the earliest stop string wins, then the longest; the match stays when asked', () => {
  assert.deepEqual(new StopStrings(['b', 'abc', 'ab'], false).push('xabcd'), { text: 'x', stop: 'abc' })
  assert.deepEqual(new StopStrings(['abc'], true).push('xabcd'), { text: 'xabc', stop: 'abc' })
})

test('held text is returned at the end when it was no stop string', () => {
  const stops = new StopStrings(['\n\n'], false)
  assert.equal(stops.push('line\n').text, 'line')
  assert.equal(stops.flush(), '\n')
})

test('any cut of a text gives the same result as the whole', () => {
  const text = 'aabaabaaabab'
  for (const stop of ['aaab', 'abab', 'aabaaba', 'zz']) {
    const whole = new StopStrings([stop], false)
    const matched = whole.push(text)
    const expected = matched.stop === null ? matched.text + whole.flush() : matched.text
    for (let cut = 1; cut < text.length; cut++) {
      const stops = new StopStrings([stop], false)
      const first = stops.push(text.slice(0, cut))
      let result = first.text
      if (first.stop === null) {
        const second = stops.push(text.slice(cut))
        result += second.text + (second.stop === null ? stops.flush() : '')
      }
      assert.equal(result, expected, `${stop} cut at ${cut}`)
    }
  }
})
