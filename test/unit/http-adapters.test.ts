import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { AdapterDirectory } from '../../src/server/generation/adapter-directory.ts'
import { KeyedLock } from '../../src/server/generation/keyed-lock.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { type HarnessOptions, startHarness } from '../support/http-harness.ts'
import { scratchFolder } from '../support/scratch-folder.ts'

const LOAD = '/v1/load_lora_adapter'
const UNLOAD = '/v1/unload_lora_adapter'
const ok = { prompt: 'x', max_tokens: 1 }

async function withHarness(
  options: HarnessOptions,
  work: (harness: Awaited<ReturnType<typeof startHarness>>) => Promise<void>,
) {
  const harness = await startHarness(options)
  try {
    await work(harness)
  } finally {
    await harness.close()
  }
}

async function adapterRoot(...names: string[]): Promise<string> {
  const root = scratchFolder()
  for (const name of names) {
    await mkdir(join(root, name), { recursive: true })
    await writeFile(join(root, name, 'adapter_config.json'), '{}')
  }
  return root
}

test('an adapter is loaded, listed, used by name, and unloaded', async () => {
  const root = await adapterRoot('pirate')
  await withHarness({}, async ({ post, get, engine, log }) => {
    const loaded = await post(LOAD, { lora_name: 'pirate', lora_path: join(root, 'pirate') })
    assert.equal(loaded.status, 200)
    assert.equal(loaded.text, "Success: LoRA adapter 'pirate' added successfully.")
    assert.match(loaded.headers['content-type'] as string, /^text\/plain/)

    const { data } = (await get('/v1/models')).json
    assert.deepEqual(
      data.map((card: { id: string; parent: string | null; max_model_len: number | null }) => [
        card.id,
        card.parent,
        card.max_model_len,
      ]),
      [
        ['demo', null, 512],
        ['alias', null, 512],
        ['pirate', 'demo', null],
      ],
    )
    assert.equal(data[0].root, '/models/demo')
    assert.equal(data[2].root, engine.loads[0]!.path)
    assert.equal(data[2].created, 1_700_000_000)

    const answer = await post('/v1/completions', { ...ok, model: 'pirate' })
    assert.equal(answer.json.model, 'pirate')
    assert.equal(engine.adapterName(engine.submitted.at(-1)!.adapterId), 'pirate')
    assert.equal(log.find((line) => line.msg === 'request')!['adapter'], 'pirate')
    assert.equal((await post('/v1/completions', { ...ok, model: 'demo:pirate' })).json.model, 'pirate')
    assert.equal((await post('/v1/completions', { ...ok, lora_path: 'pirate' })).json.model, 'pirate')
    assert.equal((await post('/v1/completions', ok)).json.model, 'demo')
    assert.equal(engine.submitted.at(-1)!.adapterId, null)

    const unloaded = await post(UNLOAD, { lora_name: 'pirate' })
    assert.equal(unloaded.text, "Success: LoRA adapter 'pirate' removed successfully.")
    assert.equal((await post('/v1/completions', { ...ok, model: 'pirate' })).status, 404)
    const again = await post(UNLOAD, { lora_name: 'pirate' })
    assert.equal(again.status, 404)
    assert.equal(again.json.error.type, 'NotFoundError')
  })
})

test('refusals of the adapter routes carry both shapes', async () => {
  const root = await adapterRoot('a')
  const path = join(root, 'a')
  const cases: [object, number, string, RegExp][] = [
    [{ lora_path: path }, 400, 'InvalidUserInput', /lora_name: is required/],
    [{ lora_name: 'n' }, 400, 'InvalidUserInput', /lora_path: is required/],
    [{ lora_name: 5, lora_path: path }, 400, 'InvalidUserInput', /lora_name/],
    [{ lora_name: 'alias', lora_path: path }, 400, 'InvalidUserInput', /base model/],
    [{ lora_name: 'a,b', lora_path: path }, 400, 'InvalidUserInput', /commas/],
    [{ lora_name: 'n', lora_path: 'relative/dir' }, 400, 'InvalidUserInput', /absolute/],
    [{ lora_name: 'n', lora_path: join(root, 'none') }, 404, 'NotFoundError', /no adapter found at .*none/],
  ]
  await withHarness({}, async ({ post, engine }) => {
    for (const [body, status, type, words] of cases) {
      const { status: actual, json } = await post(LOAD, body)
      assert.equal(actual, status, JSON.stringify(body))
      assert.match(json.error.message, words)
      assert.deepEqual([json.error.type, json.error.code, json.type, json.message], [type, status, type, json.error.message])
    }
    assert.equal(engine.loads.length, 0)
    await post(LOAD, { lora_name: 'n', lora_path: path })
    const duplicate = await post(LOAD, { lora_name: 'n', lora_path: path })
    assert.equal(duplicate.status, 400)
    assert.match(duplicate.json.message, /has already been loaded/)
    assert.equal((await post(LOAD, { lora_name: 'n', lora_path: path, load_inplace: true })).status, 200)
  })
})

test("a refused adapter is the client's fault, in the loader's words", async () => {
  const root = await adapterRoot('a')
  const refused = new LorikeetError('ADAPTER_REFUSED', { name: 'n', field: 'r', reason: 'must be positive' })
  const onLoad = () => Promise.reject(refused)
  await withHarness({ onLoad }, async ({ post }) => {
    const answer = await post(LOAD, { lora_name: 'n', lora_path: join(root, 'a') })
    assert.equal(answer.status, 400)
    assert.equal(answer.json.message, refused.message)
  })
})

test('only allowed directories may be read, through links too', async () => {
  const root = await adapterRoot('in/a', 'out/b')
  await symlink(join(root, 'out/b'), join(root, 'in/link'))
  await withHarness({ adapters: { allowedPathPrefixes: [join(root, 'in')] } }, async ({ post }) => {
    const load = async (path: string) => (await post(LOAD, { lora_name: 'n', lora_path: path, load_inplace: true })).status
    assert.equal(await load(join(root, 'in/a')), 200)
    for (const path of ['out/b', 'in/link', 'in/../out/b', 'in-other', 'out/none']) {
      const answer = await post(LOAD, { lora_name: 'n', lora_path: join(root, path), load_inplace: true })
      assert.equal(answer.status, 400, path)
      assert.match(answer.json.message, /outside/)
    }
    assert.equal(await load(join(root, 'in/none')), 404)
  })
})

test('without runtime updating there are no such routes, and nothing is looked up on disk', async () => {
  const root = await adapterRoot('pirate')
  await withHarness({ adapters: { allowRuntimeUpdating: false, adapterDir: root } }, async ({ post, get }) => {
    assert.equal((await post(LOAD, {})).status, 404)
    assert.equal((await post('/v1/completions', { ...ok, model: 'pirate' })).status, 404)
    assert.equal('/v1/load_lora_adapter' in (await get('/openapi.json')).json.paths, false)
  })
})

test('an unknown name is looked up in the adapter directory and loaded once', async () => {
  const root = await adapterRoot('pirate', 'org/robot')
  await withHarness({ adapters: { adapterDir: root } }, async ({ post, engine }) => {
    const answers = await Promise.all([1, 2, 3, 4].map(() => post('/v1/completions', { ...ok, model: 'pirate' })))
    assert.deepEqual(
      answers.map((answer) => answer.status),
      [200, 200, 200, 200],
    )
    assert.equal(engine.loads.length, 1)
    assert.equal((await post('/v1/completions', { ...ok, model: 'org/robot' })).json.model, 'org/robot')
    assert.equal((await post('/v1/completions', { ...ok, model: 'alias:org/robot' })).json.model, 'org/robot')
  })
})

test('names that could leave the adapter directory are never looked up', async () => {
  const root = await adapterRoot('in/a', 'out/b')
  await symlink(join(root, 'out'), join(root, 'in/link'))
  await withHarness({ adapters: { adapterDir: join(root, 'in') } }, async ({ post, engine }) => {
    for (const model of [
      '../out/b',
      'a/../../out/b',
      '/etc',
      'link/b',
      '.hidden',
      'a//b',
      'a/',
      'a\u0000b',
      'a\\b',
      'a'.repeat(200),
    ]) {
      assert.equal((await post('/v1/completions', { ...ok, model })).status, 404, model)
    }
    assert.equal(engine.loads.length, 0)
    assert.equal((await post('/v1/completions', { ...ok, model: 'a' })).status, 200)
  })
})

test('an absent name is remembered for a short time only', async () => {
  const root = await adapterRoot()
  const engine = new FakeEngine()
  let nowMs = 0
  const directory = new AdapterDirectory(engine, root, new KeyedLock(), () => nowMs)
  assert.equal(await directory.load('late'), null)
  await mkdir(join(root, 'late'))
  assert.equal(await directory.load('late'), null)
  nowMs = 10_000
  assert.equal((await directory.load('late'))?.name, 'late')
})

test('an adapter found but not loadable is a 400', async () => {
  const root = await adapterRoot('bad')
  const onLoad = () => Promise.reject(new LorikeetError('ADAPTER_REFUSED', { name: 'bad', field: 'r', reason: 'x' }))
  await withHarness({ adapters: { adapterDir: root }, onLoad }, async ({ post }) => {
    assert.equal((await post('/v1/completions', { ...ok, model: 'bad' })).status, 400)
  })
})

test('a client that sent only a name is not told where it led', async () => {
  const root = await adapterRoot('bad')
  const onLoad = ({ path }: { path: string }) =>
    Promise.reject(new LorikeetError('SAFETENSORS_INVALID', { file: join(path, 'weights'), reason: 'truncated' }))
  await withHarness({ adapters: { adapterDir: root }, onLoad }, async ({ post }) => {
    assert.equal((await post('/v1/completions', { ...ok, model: 'bad' })).json.error.message, 'weights: truncated')
  })
})

test('two different adapters in one request are a 400', async () => {
  const root = await adapterRoot('a', 'b')
  await withHarness({ adapters: { adapterDir: root } }, async ({ post }) => {
    const answer = await post('/v1/completions', { ...ok, model: 'a', lora_path: 'b' })
    assert.equal(answer.status, 400)
    assert.equal(answer.json.error.param, 'lora_path')
    assert.equal((await post('/v1/completions', { ...ok, model: 'a', lora_path: 'a' })).status, 200)
  })
})

test('operations on one name wait for each other, others do not', async () => {
  const lock = new KeyedLock()
  const order: string[] = []
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const first = lock.run('a', async () => {
    await held
    order.push('a1')
    throw new LorikeetError('INTERNAL')
  })
  const second = lock.run('a', async () => order.push('a2'))
  await lock.run('b', async () => order.push('b'))
  release()
  await assert.rejects(first)
  await second
  assert.deepEqual(order, ['b', 'a1', 'a2'])
})

test('a single model is described, its name may hold slashes', async () => {
  const root = await adapterRoot('org/robot')
  await withHarness({ adapters: { adapterDir: root } }, async ({ get, post }) => {
    await post('/v1/completions', { ...ok, model: 'org/robot' })
    assert.equal((await get('/v1/models/alias')).json.id, 'alias')
    assert.equal((await get('/v1/models/org/robot')).json.id, 'org/robot')
    assert.equal((await get('/v1/models/org%2Frobot')).json.parent, 'demo')
    const missing = await get('/v1/models/nobody')
    assert.equal(missing.status, 404)
    assert.equal(missing.json.error.param, 'model')
  })
})

test('an adapter unloaded while a request was on its way is a 404 that names it as the client did', async () => {
  const failure = new LorikeetError('MODEL_NOT_FOUND', { model: 'adapter 12' })
  await withHarness({ failure }, async ({ post }) => {
    await post(LOAD, { lora_name: 'pirate', lora_path: join(await adapterRoot('pirate'), 'pirate') })
    const { status, json } = await post('/v1/completions', { ...ok, model: 'pirate' })
    assert.equal(status, 404)
    assert.equal(json.error.param, 'model')
    assert.match(json.error.message, /The model `pirate` does not exist/)
  })
})
