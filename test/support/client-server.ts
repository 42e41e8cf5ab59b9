// The server that black-box clients talk to: demo texts on the reference backend, one adapter, a key.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { adapterCases, baseCase } from './demo-cases.ts'
import { scratchFolder } from './scratch-folder.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from './server-process.ts'

export const BASE_NAME = 'stories'
export const API_KEY = 'secret'
export const BASE = baseCase()
export const PIRATE = adapterCases('pirate')[0] as typeof BASE
/** Tokens of a base text: enough to be more than one event, few enough to be quick. */
export const NUM_BASE_TOKENS = 24
// No special tokens: the greedy answer to a chat of one message is then that to the bare prompt.
const TEMPLATE = '{% for message in messages %}{{ message.content }}{% endfor %}'

export function startClientServer(...flags: string[]): Promise<ServerProcess> {
  return startServer('reference', flags)
}

/** The same where texts do not matter. */
export function startFastServer(...flags: string[]): Promise<ServerProcess> {
  return startServer('null', flags)
}

async function startServer(backend: string, flags: readonly string[]): Promise<ServerProcess> {
  const template = join(scratchFolder(), 'template.jinja')
  writeFileSync(template, TEMPLATE)
  return ServerProcess.start([
    ...['--model', DEMO_MODEL, '--served-model-name', BASE_NAME, '--backend', backend, '--api-key', API_KEY],
    ...['--adapter', `pirate=${join(DEMO_ADAPTERS, 'pirate')}`, '--chat-template', template, ...flags],
  ])
}

/** Waits until the server has ended a call because its client left, and returns how many tokens it had made. */
export async function abortedCall(server: ServerProcess): Promise<number> {
  const line = await server.waitForLog((entry) => entry.msg === 'request' && entry['finishReason'] === 'abort')
  return line['outputTokens'] as number
}

/** Another process may take it before it is used; no test does. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  assert.ok(address !== null && typeof address === 'object')
  probe.close()
  await once(probe, 'close')
  return address.port
}
