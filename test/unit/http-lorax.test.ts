// LoRAX's dialect on a scripted engine.

import assert from 'node:assert/strict'
import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { LORAX_PARAMETERS } from '../../src/server/request/lorax-fields.ts'
import { demoTokenizer, type Harness, type HarnessOptions, parseEvents, startHarness } from '../support/http-harness.ts'
import { scratchFolder } from '../support/scratch-folder.ts'

const tokenizer = demoTokenizer()
const WORDS = tokenizer.encode('the little girl was happy', false)
// With the blank that separates it from the inputs.
const TEXT = ' the little girl was happy'
const EOS = 2
const inputs = 'Once upon a time'

async function withHarness(options: HarnessOptions, work: (harness: Harness) => Promise<void>): Promise<void> {
  const harness = await startHarness({ script: () => [...WORDS, EOS], ...options })
  try {
    await work(harness)
  } finally {
    await harness.close()
  }
}

function adapterFolder(): string {
  const folder = join(realpathSync(scratchFolder()), 'pirate')
  mkdirSync(folder)
  writeFileSync(join(folder, 'adapter_config.json'), '{}')
  return folder
}

describe('/generate', () => {
  test('answers greedily with the text, and with headers about the work', async () => {
    await withHarness({}, async ({ post, engine }) => {
      const { status, json, headers } = await post('/generate', { inputs })
      assert.equal(status, 200)
      assert.deepEqual(json, { generated_text: TEXT })
      const { sampling, promptTokenIds } = engine.submitted[0]!
      assert.equal(sampling.temperature, 0)
      assert.equal(sampling.logprobs, null)
      assert.equal(sampling.maxTokens, 512 - promptTokenIds.length)
      assert.deepEqual([...promptTokenIds], tokenizer.encode(inputs, true))
      assert.equal(headers['x-prompt-tokens'], String(promptTokenIds.length))
      assert.equal(headers['x-generated-tokens'], String(WORDS.length + 1))
      assert.equal(headers['x-total-tokens'], String(promptTokenIds.length + WORDS.length + 1))
      assert.equal(headers['x-model-id'], 'demo')
      assert.equal(headers['x-compute-type'], 'cpu')
      assert.equal(headers['x-compute-characters'], String(inputs.length))
      assert.equal(headers['x-adapter-id'], undefined)
      for (const name of ['x-total-time', 'x-validation-time', 'x-queue-time', 'x-inference-time', 'x-time-per-token']) {
        assert.match(headers[name] as string, /^\d+$/, name)
      }
      assert.equal(headers['x-time-to-first-token'], '5')
      assert.ok(headers['x-request-id'])
    })
  })

  test('every sampling parameter reaches the engine', async () => {
    await withHarness({}, async ({ post, engine }) => {
      const parameters = {
        temperature: 0.5,
        top_k: 7,
        top_p: 0.9,
        repetition_penalty: 1.1,
        frequency_penalty: 0.2,
        presence_penalty: -0.3,
        seed: 42,
        max_new_tokens: 3,
        ignore_eos_token: true,
        truncate: 2,
        typical_p: 1,
        watermark: false,
        api_token: 'secret',
      }
      const { json } = await post('/generate', { inputs, parameters: { ...parameters, details: true } })
      const { sampling, promptTokenIds } = engine.submitted[0]!
      assert.deepEqual(
        [sampling.temperature, sampling.topK, sampling.topP, sampling.minP, sampling.repetitionPenalty],
        [0.5, 7, 0.9, 0, 1.1],
      )
      assert.deepEqual([sampling.frequencyPenalty, sampling.presencePenalty, sampling.seed], [0.2, -0.3, 42])
      assert.deepEqual([sampling.maxTokens, sampling.ignoreEos], [3, true])
      assert.deepEqual([...promptTokenIds], tokenizer.encode(inputs, true).slice(-2))
      assert.equal(json.details.seed, 42)
      assert.equal(json.details.finish_reason, 'length')
      assert.equal(json.details.prompt_tokens, 2)
    })
  })

  test('sampling is on by do_sample, temperature, top_k or top_p, and tells its seed', async () => {
    await withHarness({}, async ({ post, engine }) => {
      for (const parameters of [{ do_sample: true }, { temperature: 0.7 }, { top_k: 3 }, { top_p: 0.5 }]) {
        const { json } = await post('/generate', { inputs, parameters: { ...parameters, details: true } })
        const { temperature, seed } = engine.submitted.at(-1)!.sampling
        assert.equal(temperature, parameters.temperature ?? 1)
        assert.equal(json.details.seed, seed)
        assert.ok(Number.isInteger(seed))
      }
      const { json } = await post('/generate', { inputs, parameters: { temperature: 0, do_sample: true, details: true } })
      assert.equal(json.details.seed, null)
    })
  })

  test('details list every token, and prompt tokens when asked', async () => {
    await withHarness({}, async ({ post }) => {
      const parameters = { decoder_input_details: true, return_k_alternatives: 2, top_n_tokens: 3, return_full_text: true }
      const { json } = await post('/generate', { inputs, parameters })
      assert.equal(json.generated_text, inputs + TEXT)
      const { details } = json
      assert.equal(details.finish_reason, 'eos_token')
      assert.equal(details.generated_tokens, WORDS.length + 1)
      assert.equal(details.skipped_tokens, 0)
      assert.deepEqual(
        details.tokens.map((token: { id: number }) => token.id),
        [...WORDS, EOS],
      )
      const { tokens } = details
      assert.equal(
        tokens
          .filter((token: { special: boolean }) => !token.special)
          .map((token: { text: string }) => token.text)
          .join(''),
        TEXT,
      )
      assert.deepEqual([tokens.at(-1).special, tokens.at(-1).text], [true, '</s>'])
      assert.equal(tokens[0].logprob, -1)
      assert.equal(tokens[0].skipped, false)
      assert.deepEqual(
        tokens[0].alternative_tokens.map(({ id, logprob }: { id: number; logprob: number }) => [id, logprob]),
        [
          [265, -0.5],
          [266, -0.625],
        ],
      )
      assert.equal(details.top_tokens.length, tokens.length)
      assert.equal(details.top_tokens[0].length, 3)
      const prompt = tokenizer.encode(inputs, true)
      assert.deepEqual(
        details.prefill.map((token: { id: number }) => token.id),
        prompt,
      )
      assert.equal(details.prefill[0].logprob, null)
      assert.equal(details.prefill[1].logprob, -1)
    })
  })

  test('a stop sequence stays in the text, cut where it ends', async () => {
    await withHarness({}, async ({ post }) => {
      const { json } = await post('/generate', { inputs, parameters: { stop: ['girl w'], details: true } })
      assert.equal(json.generated_text, TEXT.slice(0, TEXT.indexOf('girl w') + 'girl w'.length))
      assert.equal(json.details.finish_reason, 'stop_sequence')
      assert.equal(json.details.tokens.map((token: { text: string }) => token.text).join(''), json.generated_text)
    })
  })

  test('best_of answers with the likelier and lists the other', async () => {
    await withHarness({}, async ({ post, engine }) => {
      const parameters = { best_of: 2, do_sample: true, details: true, max_new_tokens: 2 }
      const { json } = await post('/generate', { inputs, parameters })
      const [first, second] = engine.submitted
      assert.equal(second!.sampling.seed, first!.sampling.seed! + 1)
      assert.equal(json.details.seed, first!.sampling.seed)
      const [other] = json.details.best_of_sequences
      assert.equal(other.seed, second!.sampling.seed)
      assert.equal(other.generated_tokens, 2)
      assert.equal(other.tokens.length, 2)
      assert.equal(typeof other.generated_text, 'string')
    })
  })

  test('apply_chat_template makes a message of the inputs', async () => {
    await withHarness({}, async ({ post, engine }) => {
      await post('/generate', { inputs: 'Hi', parameters: { apply_chat_template: true } })
      assert.deepEqual([...engine.submitted[0]!.promptTokenIds], tokenizer.encode('user: Hi\nassistant: ', false))
    })
  })
})

describe('/generate_stream', () => {
  test('sends one event a token, the last with the whole text and details, and no end mark', async () => {
    await withHarness({}, async ({ post }) => {
      const { status, headers, text } = await post('/generate_stream', { inputs, parameters: { details: true } })
      assert.equal(status, 200)
      assert.match(headers['content-type'] as string, /^text\/event-stream/)
      assert.equal(headers['x-model-id'], 'demo')
      const { events, isDone } = parseEvents(text)
      assert.equal(isDone, false)
      assert.deepEqual(
        events.map(({ token }) => token.id),
        [...WORDS, EOS],
      )
      const last = events.pop()
      assert.ok(events.every((event) => event.generated_text === null && event.details === null))
      assert.equal(events.map(({ token }) => token.text).join(''), TEXT)
      assert.equal(last.generated_text, TEXT)
      assert.deepEqual(last.details, {
        finish_reason: 'eos_token',
        prompt_tokens: tokenizer.encode(inputs, true).length,
        generated_tokens: WORDS.length + 1,
        seed: null,
      })
    })
  })

  test('ends at a stop sequence with the token that met it', async () => {
    await withHarness({}, async ({ post }) => {
      const { text } = await post('/generate_stream', { inputs, parameters: { stop: ['girl'], return_full_text: true } })
      const { events } = parseEvents(text)
      const whole = TEXT.slice(0, TEXT.indexOf('girl') + 'girl'.length)
      assert.equal(events.map(({ token }) => token.text).join(''), whole)
      assert.equal(events.at(-1).generated_text, inputs + whole)
      assert.equal(events.at(-1).details, null)
    })
  })

  test('refuses what cannot be streamed before it begins', async () => {
    await withHarness({}, async ({ post }) => {
      for (const parameters of [{ best_of: 2, do_sample: true }, { decoder_input_details: true }]) {
        const { status, json } = await post('/generate_stream', { inputs, parameters })
        assert.equal(status, 422)
        assert.equal(json.error_type, 'validation')
      }
    })
  })
})

test('POST / streams or answers with a list of one, as the body says', async () => {
  await withHarness({}, async ({ post }) => {
    assert.deepEqual((await post('/', { inputs, stream: false })).json, [{ generated_text: TEXT }])
    const { events } = parseEvents((await post('/', { inputs, stream: true })).text)
    assert.equal(events.at(-1).generated_text, TEXT)
  })
})

describe('adapters', () => {
  test('are found by name first, whatever the source', async () => {
    await withHarness({}, async ({ post, engine }) => {
      await engine.loadAdapter({ name: 'pirate', path: '/adapters/pirate' })
      for (const adapter_source of [undefined, 'hub', 'local', 's3', 'pbase']) {
        const { status, headers } = await post('/generate', { inputs, parameters: { adapter_id: 'pirate', adapter_source } })
        assert.equal(status, 200)
        assert.equal(headers['x-adapter-id'], 'pirate')
        assert.equal(headers['x-adapter-source'], adapter_source ?? 'local')
      }
      assert.equal(engine.adapterName(engine.submitted.at(-1)!.adapterId), 'pirate')
      await post('/generate', { inputs, parameters: { adapter_id: 'demo' } })
      assert.equal(engine.submitted.at(-1)!.adapterId, null)
    })
  })

  test('are loaded from a directory once, however its path is written', async () => {
    const folder = adapterFolder()
    const link = join(realpathSync(scratchFolder()), 'link')
    symlinkSync(folder, link)
    await withHarness({ adapters: { allowedPathPrefixes: [join(folder, '..')] } }, async ({ post, engine }) => {
      const ask = (adapter_id: string) => post('/generate', { inputs, parameters: { adapter_id, adapter_source: 'local' } })
      const answers = await Promise.all([ask(folder), ask(folder), ask(link)])
      assert.deepEqual(
        answers.map(({ status, headers }) => [status, headers['x-adapter-id']]),
        answers.map(() => [200, folder]),
      )
      assert.equal(engine.loads.length, 1)
      const openai = await post('/v1/completions', { model: folder, adapter_source: 'local', prompt: 'x', max_tokens: 1 })
      assert.equal(openai.json.model, folder)
      const outside = await ask('/etc')
      assert.deepEqual([outside.status, outside.json.error_type], [422, 'validation'])
      assert.match(outside.json.error, /^parameters.adapter_id: is outside/)
      assert.equal((await ask(join(folder, '../nowhere'))).status, 404)
    })
  })

  test('are not loaded where the server does not allow it', async () => {
    await withHarness({ adapters: { allowRuntimeUpdating: false } }, async ({ post }) => {
      const parameters = { adapter_id: adapterFolder(), adapter_source: 'local' }
      const { status, json } = await post('/generate', { inputs, parameters })
      assert.equal(status, 422)
      assert.match(json.error, /--allow-runtime-lora-updating/)
    })
  })
})

describe('errors', () => {
  test('name the field, in LoRAX words', async () => {
    await withHarness({}, async ({ post }) => {
      const cases: [object, RegExp][] = [
        [{ watermark: true }, /^parameters.watermark is not supported/],
        [{ typical_p: 0.9 }, /^parameters.typical_p is not supported/],
        [
          { merged_adapters: { ids: ['a', 'b'], weights: [1, 1], merge_strategy: 'ties' } },
          /^parameters.merged_adapters.merge_strategy is not supported/,
        ],
        [{ adapter_id: 'a', adapter_source: 's3' }, /^parameters.adapter_source is not supported/],
        [{ adapter_source: 'moon' }, /^parameters.adapter_source: must be one of/],
        [{ best_of: 3 }, /^parameters.best_of/],
        [{ best_of: 2 }, /^parameters.best_of: over 1 needs sampling/],
        [{ best_of: 2, do_sample: true, seed: 1 }, /^parameters.seed/],
        [{ max_new_tokens: 0 }, /^parameters.max_new_tokens/],
        [{ max_new_tokens: 5000 }, /maximum context length/],
        [{ top_p: 0 }, /^parameters.top_p/],
        [{ top_k: 0 }, /^parameters.top_k/],
        [{ return_k_alternatives: 21 }, /^parameters.return_k_alternatives: must be at most 20/],
        [{ stop: ['a', 'b', 'c', 'd', 'e'] }, /^parameters.stop/],
        [{ response_format: { type: 'nonsense' } }, /^parameters.response_format/],
        [{ grammar: { type: 'regex', value: 'a' } }, /^parameters.grammar/],
      ]
      for (const [parameters, message] of cases) {
        const { status, json } = await post('/generate', { inputs, parameters })
        assert.deepEqual([status, json.error_type], [422, 'validation'], JSON.stringify(parameters))
        assert.match(json.error, message)
      }
      assert.match((await post('/generate', { inputs: '' })).json.error, /^inputs/)
      assert.match((await post('/generate', { inputs, parameters: 5 })).json.error, /^parameters/)
      assert.equal((await post('/generate', '{')).json.error_type, 'validation')
    })
  })

  test('tell of nonsense in any parameter by its name', async () => {
    const nonsense = ['x', '', -1, 0, 1.5, 1e300, true, false, null, [], {}, [null], [{}], '\ud800', 2 ** 60]
    await withHarness({ script: () => [300, EOS] }, async ({ post }) => {
      for (const name of Object.keys(LORAX_PARAMETERS)) {
        for (const value of nonsense) {
          const { status, json } = await post('/generate', { inputs, parameters: { [name]: value } })
          const shown = `${name} ${JSON.stringify(value)}: ${JSON.stringify(json)}`
          assert.ok([200, 404, 422].includes(status), shown)
          if (status === 422 && !json.error.includes('maximum context'))
            assert.ok(json.error.startsWith(`parameters.${name}`), shown)
        }
      }
    })
  })

  test('have the statuses that its clients know', async () => {
    await withHarness({ server: { apiKeys: ['key'] } }, async ({ post, engine }) => {
      const headers = { authorization: 'Bearer key' }
      const unknown = await post('/generate', { inputs, parameters: { adapter_id: 'nobody' } }, headers)
      assert.deepEqual([unknown.status, unknown.json.error_type], [404, 'not_found'])
      const stranger = await post('/generate', { inputs })
      assert.deepEqual([stranger.status, stranger.json.error_type], [401, 'authentication'])
      engine.state = 'dead'
      const dead = await post('/generate', { inputs }, headers)
      assert.deepEqual([dead.status, dead.json.error_type, dead.headers['retry-after']], [503, 'unavailable', '1'])
    })
    await withHarness({ maxQueue: 0 }, async ({ post }) => {
      const full = await post('/generate', { inputs })
      assert.deepEqual([full.status, full.json.error_type], [429, 'overloaded'])
    })
    const failure = new LorikeetError('BACKEND_FAILED', { backend: 'fake', detail: 'broken' })
    await withHarness({ failure }, async ({ post, log }) => {
      for (const path of ['/generate', '/generate_stream']) {
        const failed = await post(path, { inputs })
        assert.deepEqual([failed.status, failed.json.error_type], [424, 'generation'])
      }
      assert.ok(log.some(({ msg }) => msg === 'request failed'))
    })
  })

  test('of a drain are an incomplete generation', async () => {
    await withHarness({ script: () => Array.from({ length: 400 }, () => 300) }, async ({ post, server, engine }) => {
      const whole = post('/generate', { inputs })
      const streamed = post('/generate_stream', { inputs })
      while (engine.numRunning < 2) await new Promise((resolve) => setTimeout(resolve, 1))
      await server.close(0)
      const { status, json } = await whole
      assert.deepEqual([status, json.error_type], [500, 'incomplete_generation'])
      assert.equal(parseEvents((await streamed).text).events.at(-1).error_type, 'incomplete_generation')
    })
  })
})

test('/info tells limits, /startup is open', async () => {
  await withHarness({ server: { apiKeys: ['key'] } }, async ({ get }) => {
    const { json } = await get('/info', { authorization: 'Bearer key' })
    assert.equal(json.model_id, 'demo')
    assert.equal(json.max_total_tokens, 512)
    assert.equal(json.max_input_length, 511)
    assert.equal(json.version, '9.9.9')
    assert.equal((await get('/info')).json.error_type, 'authentication')
    assert.equal((await get('/startup')).status, 200)
  })
})

test('/tokenize with inputs tells where tokens stand', async () => {
  await withHarness({}, async ({ post }) => {
    const text = 'Once upon a time, déjà 🙂 vu'
    const { json } = await post('/tokenize', { inputs: text })
    assert.deepEqual(
      json.map(({ id }: { id: number }) => id),
      tokenizer.encode(text, true),
    )
    const characters = [...text]
    const added = json.filter(({ start, stop }: { start: number; stop: number }) => start === stop)
    assert.deepEqual(
      added.map(({ text: string }: { text: string }) => string),
      ['<s>'],
    )
    let covered = ''
    let last = 0
    for (const { start, stop } of json) {
      if (start === stop || stop <= last) continue
      covered += characters.slice(start, stop).join('')
      last = stop
    }
    assert.equal(covered.replaceAll(' ', ''), text.replaceAll(' ', ''))
    const bare = await post('/tokenize', { inputs: text, add_special_tokens: false })
    assert.equal(bare.json.length, json.length - 1)
    const bad = await post('/tokenize', { inputs: 5 })
    assert.deepEqual([bad.status, bad.json.error_type], [422, 'validation'])
  })
})
