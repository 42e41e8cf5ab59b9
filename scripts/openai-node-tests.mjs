// Runs openai-node's own tests of API resources against this server:
//
//   npm run build && node scripts/openai-node-tests.mjs CHECKOUT [tests/api-resources/FILE ...]
//
// CHECKOUT is a clone of github.com/openai/openai-node. Its tests are written for jest and for a mock that accepts whatever the
// schema allows; here they run on node:test with the client of node_modules. Cases that only a mock can pass, and those of
// resources this server does not have, are listed below with the status that is expected instead. Any other failure is one.

import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/** Those of this server, and the two surfaces that it may have one day. */
const DEFAULT_FILES = [
  'completions.test.ts',
  'chat/completions/completions.test.ts',
  'chat/completions/messages.test.ts',
  'models.test.ts',
  'embeddings.test.ts',
  'responses/responses.test.ts',
].map((file) => `tests/api-resources/${file}`)

/** Names the tests use, which are served as aliases. */
const MODELS = ['gpt-3.5-turbo-instruct', 'gpt-5.4', 'gpt-4o-mini']

/** `describe > test` to the status that is expected; `*` stands for every test. */
const EXPECTED = {
  // logit_bias {foo: 0}, suffix, and stream_options without stream: for a mock.
  'resource completions > create: required and optional params': 400,
  'resource completions > retrieve': 404,
  'resource completions > update: only required params': 404,
  'resource completions > update: required and optional params': 404,
  'resource completions > list': 405,
  'resource completions > delete': 404,
  'resource messages > *': 404,
  'resource models > delete': 405,
  'resource embeddings > *': 404,
  'resource responses > *': 404,
}

const SHIM = `
import assert from 'node:assert/strict'
import { describe as suite, test as run } from 'node:test'
const EXPECTED = ${JSON.stringify(EXPECTED)}
let current = ''
globalThis.describe = (name, body) => suite(name, () => { current = name; body() })
globalThis.test = (name, body) => {
  const status = EXPECTED[current + ' > ' + name] ?? EXPECTED[current + ' > *']
  if (status === undefined || / passed correctly$/.test(name)) return run(name, body)
  return run(name + ' [listed: ' + status + ']', () => assert.rejects(async () => body(), { status }))
}
globalThis.test.skip = (name, body) => run.skip(name, body)
globalThis.expect = (actual) => ({
  toBe: (expected) => assert.equal(actual, expected),
  toEqual: (expected) => assert.deepEqual(actual, expected),
  toBeInstanceOf: (type) => assert.ok(actual instanceof type),
  not: { toBeInstanceOf: (type) => assert.ok(!(actual instanceof type)) },
  rejects: { toThrow: (type) => assert.rejects(actual, type) },
})
`

async function main([checkout, ...files]) {
  if (checkout === undefined) {
    console.error('usage: node scripts/openai-node-tests.mjs CHECKOUT [tests/api-resources/FILE ...]')
    return 2
  }
  const folder = mkdtempSync(join(tmpdir(), 'openai-node-tests-'))
  const port = await freePort()
  const server = startServer(port, folder)
  try {
    await untilReady(port, server)
    const tests = copyTests(resolve(checkout), files.length === 0 ? DEFAULT_FILES : files, folder)
    const args = ['--import', 'tsx', '--import', pathToFileURL(join(folder, 'shim.mjs')).href, '--test', ...tests]
    const env = { ...process.env, TEST_API_BASE_URL: `http://127.0.0.1:${port}/v1` }
    return spawnSync(process.execPath, args, { cwd: folder, env, stdio: 'inherit' }).status ?? 1
  } finally {
    server.kill('SIGTERM')
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Beside a link to our node_modules, so that `openai` is the client installed here. */
function copyTests(checkout, files, folder) {
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  writeFileSync(join(folder, 'shim.mjs'), SHIM)
  return files.map((file) => {
    cpSync(join(checkout, file), join(folder, file))
    return join(folder, file)
  })
}

function startServer(port, folder) {
  const template = join(folder, 'template.jinja')
  writeFileSync(template, '{% for message in messages %}{{ message.content }}{% endfor %}')
  const flags = ['--model', join(ROOT, 'demo/model'), '--backend', 'null', '--chat-template', template, '--no-grpc']
  const args = [join(ROOT, 'dist/main.js'), 'serve', '--port', String(port), '--host', '127.0.0.1', ...flags]
  return spawn(process.execPath, [...args, '--served-model-name', ...MODELS], { stdio: ['ignore', 'ignore', 'inherit'] })
}

async function untilReady(port, server) {
  while (server.exitCode === null) {
    const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null)
    if (answer?.ok) return
    await new Promise((wake) => setTimeout(wake, 100))
  }
  throw new Error('the server did not start; is it built (npm run build)?')
}

function freePort() {
  return new Promise((done) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address()
      probe.close(() => done(port))
    })
  })
}

process.exitCode = await main(process.argv.slice(2))
