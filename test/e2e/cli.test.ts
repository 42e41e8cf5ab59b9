// The program as a process: commands, exit codes, start, signals.

import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { tempDir } from '../support/safetensors-file.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ROOT, runCli, ServerProcess } from '../support/server-process.ts'

// The reference backend answers the demo model quickly enough, and starts faster than a native one.
const DEMO = ['--model', DEMO_MODEL, '--backend', 'reference'] as const
const PIRATE = `pirate=${join(DEMO_ADAPTERS, 'pirate')}`

/** The pirate beside an adapter of a kind that nobody has invented. */
function mixedAdapterDir(): string {
  const dir = tempDir()
  for (const name of ['pirate', 'yodeller']) cpSync(join(DEMO_ADAPTERS, 'pirate'), join(dir, name), { recursive: true })
  const config = join(dir, 'yodeller/adapter_config.json')
  const fields = JSON.parse(readFileSync(config, 'utf8')) as object
  writeFileSync(config, JSON.stringify({ ...fields, peft_type: 'YODEL' }))
  return dir
}

interface DemoCase {
  readonly prompt: string
  readonly text: string
}

const pirateCases = (
  JSON.parse(readFileSync(join(DEMO_ADAPTERS, 'pirate/expected.json'), 'utf8')) as { readonly cases: readonly DemoCase[] }
).cases

function complete(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  return fetch(`${url}/v1/completions`, signal === undefined ? init : { ...init, signal })
}

describe('commands', () => {
  it('help and version', () => {
    const help = runCli(['help'])
    assert.equal(help.status, 0)
    assert.match(help.stdout, /lorikeet serve --model DIR/)
    assert.equal(runCli([]).stdout, help.stdout)
    for (const args of [
      ['help', 'serve'],
      ['serve', '--help'],
      ['serve', '--model', 'x', '-h'],
    ]) {
      assert.match(runCli(args).stdout, /--max-num-batched-tokens N/)
    }
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
    assert.equal(runCli(['--version']).stdout, `${version}\n`)
  })

  it('doctor for people and for programs', () => {
    const people = runCli(['doctor', DEMO_MODEL])
    assert.equal(people.status, 0, people.stdout)
    assert.match(people.stdout, /onnx +yes/)
    assert.match(people.stdout, /260,032 parameters/)
    const report = JSON.parse(runCli(['doctor', '--json']).stdout) as { runs: boolean; backends: readonly { name: string }[] }
    assert.equal(report.runs, true)
    assert.deepEqual(
      report.backends.map((backend) => backend.name),
      ['onnx', 'reference', 'null', 'cuda'],
    )
    assert.equal(runCli(['doctor', '/nowhere']).status, 1)
  })

  const usageErrors: readonly (readonly [args: readonly string[], message: RegExp])[] = [
    [['sevre'], /^lorikeet: sevre: no such command; did you mean lorikeet serve\?\n$/],
    [['--model', 'x'], /^lorikeet: --model: no such command; did you mean lorikeet serve\?/],
    [['serve'], /^lorikeet: --model: name a model directory/],
    [['serve', '--prot', '1'], /^lorikeet: --prot: no such option\. Did you mean --port\?/],
    [['serve', ...DEMO, '--port', 'x'], /^lorikeet: --port: must be a whole number/],
    [['serve', ...DEMO, '--adapter-dir', '/nowhere'], /^lorikeet: --adapter-dir: cannot read the directory \/nowhere/],
    [['serve', ...DEMO, '--max-model-len', '100000'], /^lorikeet: --max-model-len: 100000 is more than the 512 positions/],
    [['serve', ...DEMO, '--chat-template', '/nowhere'], /^lorikeet: --chat-template: no file/],
  ]
  for (const [args, message] of usageErrors) {
    it(`status 2: ${args.join(' ').replaceAll(ROOT, '.')}`, () => {
      const { status, stderr } = runCli(args)
      assert.match(stderr, message)
      assert.equal(status, 2)
    })
  }

  it('an unknown variable is named', () => {
    const { status, stderr } = runCli(['serve', ...DEMO], { LORIKEET_MAX_SEQS: '1' })
    assert.match(stderr, /^lorikeet: LORIKEET_MAX_SEQS: no such option\. Did you mean LORIKEET_MAX_NUM_SEQS\?/)
    assert.equal(status, 2)
  })

  it('status 1: a model or a static adapter that cannot be served', () => {
    const noModel = runCli(['serve', '--model', '/nowhere'])
    assert.match(noModel.stderr, /^lorikeet: model: .*\/nowhere/)
    assert.equal(noModel.status, 1)
    const refused = runCli([
      'serve',
      ...DEMO,
      '--port',
      '0',
      '--adapter',
      `yodeller=${join(mixedAdapterDir(), 'yodeller')}`,
      PIRATE,
    ])
    assert.match(refused.stderr, /^lorikeet: Adapter 'yodeller' is refused: peft_type/)
    assert.equal(refused.status, 1)
    const missing = runCli(['serve', ...DEMO, '--port', '0', '--adapter', 'ghost=/nowhere'])
    assert.match(missing.stderr, /^lorikeet: Loading adapter 'ghost' failed: no adapter found at \/nowhere/)
    assert.equal(missing.status, 1)
  })
})

describe('a running server', () => {
  let server: ServerProcess
  before(async () => {
    server = await ServerProcess.start([...DEMO, '--adapter-dir', mixedAdapterDir(), '--enable-lora', '--max-loras', '2'])
  })
  after(() => server.stop())

  it('logs what it refuses and ignores, and keeps standard output JSON', () => {
    const refused = server.logs.filter((line) => line.msg.startsWith('not served')).map((line) => line['adapter'])
    assert.deepEqual(refused, ['yodeller'])
    for (const line of server.stdout.trim().split('\n')) assert.doesNotThrow(() => JSON.parse(line), line)
    assert.ok(server.logs.some((line) => line.msg.startsWith('--max-loras has no effect')))
  })

  it('prints requests that work as they are', async () => {
    const text = await server.banner()
    const bodies = [...text.matchAll(/curl .*\/v1\/completions .*-d '(.*)'$/gm)].map((match) => match[1]!)
    assert.equal(bodies.length, 2)
    for (const body of bodies) {
      const response = await complete(server.url, JSON.parse(body) as object)
      assert.equal(response.status, 200)
      assert.ok((await response.text()).length > 100)
    }
    assert.match(text, /curl -s http:\/\/localhost:\d+\/v1\/models/)
  })

  it('answers with the text the adapter was trained to give', async () => {
    for (const { prompt, text } of pirateCases) {
      const response = await complete(server.url, { model: 'pirate', prompt, max_tokens: 48, temperature: 0 })
      const { choices } = (await response.json()) as { choices: readonly { text: string }[] }
      assert.equal(choices[0]?.text, text)
    }
  })

  it('does not load at run time unless told', async () => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' }
    assert.equal((await fetch(`${server.url}/v1/load_lora_adapter`, init)).status, 404)
  })

  it('refuses a port that is taken', () => {
    const port = new URL(server.url).port
    const { status, stderr } = runCli(['serve', ...DEMO, '--host', '127.0.0.1', '--port', port])
    assert.match(stderr, /^lorikeet: --port: .*EADDRINUSE/)
    assert.equal(status, 2)
  })
})

describe('configuration from everywhere', () => {
  it('file, variables and flags meet in one server', async () => {
    const file = join(tempDir(), 'server.json')
    writeFileSync(
      file,
      JSON.stringify({ model: DEMO_MODEL, backend: 'null', 'served-model-name': ['stories'], 'api-key': 'no' }),
    )
    const server = await ServerProcess.start(['--config', file], { LORIKEET_API_KEY: 'secret' })
    try {
      assert.equal((await fetch(`${server.url}/v1/models`)).status, 401)
      const models = await fetch(`${server.url}/v1/models`, { headers: { authorization: 'Bearer secret' } })
      const { data } = (await models.json()) as { data: readonly { id: string }[] }
      assert.deepEqual(
        data.map((card) => card.id),
        ['stories'],
      )
      assert.match(await server.banner(), /Authorization: Bearer \$LORIKEET_API_KEY/)
    } finally {
      await server.stop()
    }
  })

  it('listens on a Unix domain socket', async () => {
    const path = join(tempDir(), 'l.sock')
    const server = await ServerProcess.start([...DEMO, '--uds', path])
    try {
      const status = await new Promise((resolve, reject) => {
        request({ socketPath: path, path: '/health' }, (response) => resolve(response.resume().statusCode))
          .on('error', reject)
          .end()
      })
      assert.equal(status, 200)
      assert.match(await server.banner(), new RegExp(`--unix-socket ${path} http://localhost/v1/models`))
    } finally {
      await server.stop()
    }
  })
})

describe('signals', () => {
  // Long enough to be running whenever the signal arrives, short enough for the tests.
  const LONG = { model: DEMO_MODEL, prompt: 'Once', max_tokens: 300, temperature: 0, ignore_eos: true, stream: true }

  /** A stream that has begun. */
  async function beginStream(url: string): Promise<{ rest: () => Promise<string> }> {
    const { body } = await complete(url, LONG)
    assert.ok(body)
    const reader = body.getReader()
    const first = await reader.read()
    assert.equal(first.done, false)
    return {
      rest: async () => {
        let text = ''
        for (let part = await reader.read(); !part.done; part = await reader.read()) text += Buffer.from(part.value).toString()
        return text
      },
    }
  }

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`${signal} lets running requests finish, refuses new ones, and ends with status 0`, async () => {
      const server = await ServerProcess.start(DEMO)
      const stream = await beginStream(server.url)
      const { url } = server
      server.signal(signal)
      await server.waitForLog((line) => line.msg.startsWith('draining'))
      const refused = await complete(url, LONG)
      assert.equal(refused.status, 503)
      assert.ok(refused.headers.has('retry-after'))
      assert.equal((await fetch(`${url}/health`)).status, 503)
      const text = await stream.rest()
      assert.match(text, /"finish_reason":"length"/)
      assert.ok(text.endsWith('data: [DONE]\n\n'))
      assert.equal(await server.ended(), 0)
    })
  }

  it('what has not finished in time is aborted', async () => {
    const server = await ServerProcess.start([...DEMO, '--drain-timeout', '0.1'])
    const stream = await beginStream(server.url)
    server.signal('SIGTERM')
    const text = await stream.rest()
    assert.match(text, /"finish_reason":"abort"/)
    assert.equal(await server.ended(), 0)
  })

  it('a second signal ends at once; its echo does not', async () => {
    const server = await ServerProcess.start(DEMO)
    const stream = await beginStream(server.url)
    server.signal('SIGINT')
    server.signal('SIGINT')
    await server.waitForLog((line) => line.msg.startsWith('draining'))
    await new Promise((wake) => setTimeout(wake, 400))
    assert.equal((await fetch(`${server.url}/health`)).status, 503)
    server.signal('SIGTERM')
    await assert.rejects(stream.rest())
    assert.equal(await server.ended(), 128 + 15)
  })

  it('an idle server ends', async () => {
    const server = await ServerProcess.start(DEMO)
    assert.equal(await server.stop(), 0)
    assert.equal(server.logs.at(-1)?.msg, 'stopped')
  })
})
