// lorikeet.v1.Adapters with a real client on a scripted engine.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { type ClientReadableStream, status } from '@grpc/grpc-js'
import { LorikeetError } from '../../src/errors.ts'
import {
  type Adapter,
  AdapterState,
  type ListResponse,
  type LoadRequest,
  type LoadResponse,
  type WatchResponse,
} from '../../src/server/grpc/generated/lorikeet/v1/adapters.ts'
import {
  call,
  detailTypes,
  failure,
  type GrpcHarness,
  type GrpcHarnessOptions,
  startGrpcHarness,
} from '../support/grpc-harness.ts'

const directory = mkdtempSync(join(tmpdir(), 'lorikeet-grpc-'))
after(() => rmSync(directory, { recursive: true }))
const harnesses: GrpcHarness[] = []

async function start(options: GrpcHarnessOptions = {}): Promise<GrpcHarness> {
  const harness = await startGrpcHarness(options)
  harnesses.push(harness)
  return harness
}
afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close()
})

function load({ adapters }: GrpcHarness, parts: Partial<LoadRequest>): Promise<LoadResponse> {
  const request: LoadRequest = {
    name: 'pirate',
    source: { $case: 'path', path: directory },
    replace: false,
    pinned: false,
    wait: undefined,
    ...parts,
  }
  return call((done) => adapters.load(request, done))
}

const list = ({ adapters }: GrpcHarness, pageSize: number, pageToken: string) =>
  call<ListResponse>((done) => adapters.list({ pageSize, pageToken }, done))

test('loads, gets, replaces and unloads', async () => {
  const harness = await start()
  const { adapter } = await load(harness, {})
  assert.equal(adapter?.name, 'pirate')
  assert.equal(adapter?.state, AdapterState.HOST)
  assert.equal(adapter?.bytes, 100n)
  const taken = await failure(load(harness, {}))
  assert.equal(taken.code, status.ALREADY_EXISTS)
  await load(harness, { replace: true })
  assert.equal(harness.engine.loads.length, 2)
  const got = await call<{ adapter: Adapter | undefined }>((done) => harness.adapters.get({ name: 'pirate' }, done))
  assert.equal(got.adapter?.path, directory)
  await call((done) => harness.adapters.unload({ name: 'pirate' }, done))
  const gone = await failure(call((done) => harness.adapters.get({ name: 'pirate' }, done)))
  assert.equal(gone.code, status.NOT_FOUND)
  assert.equal((await failure(call((done) => harness.adapters.unload({ name: 'pirate' }, done)))).code, status.NOT_FOUND)
})

const refused: readonly (readonly [string, Partial<LoadRequest>, GrpcHarnessOptions, number])[] = [
  ['no source', { source: undefined }, {}, status.INVALID_ARGUMENT],
  ['no name', { name: '' }, {}, status.INVALID_ARGUMENT],
  ['a URL', { source: { $case: 'url', url: 'https://example.org/a' } }, {}, status.INVALID_ARGUMENT],
  ['pinning', { pinned: true }, {}, status.INVALID_ARGUMENT],
  ['a path outside', {}, { adapters: { allowedPathPrefixes: ['/nowhere'] } }, status.PERMISSION_DENIED],
  ['a path without anything', { source: { $case: 'path', path: '/nowhere/at/all' } }, {}, status.NOT_FOUND],
  ['loading at run time', {}, { adapters: { allowRuntimeUpdating: false } }, status.FAILED_PRECONDITION],
]
for (const [name, parts, options, code] of refused) {
  test(`refuses ${name}`, async () => {
    const harness = await start(options)
    const error = await failure(load(harness, parts))
    assert.equal(error.code, code)
    assert.ok(detailTypes(error).includes('ErrorInfo'))
    assert.equal(harness.engine.loads.length, 0)
  })
}

test('lists by pages', async () => {
  const harness = await start()
  for (const name of ['a', 'b', 'c', 'd', 'e']) await load(harness, { name })
  const names: string[] = []
  let token = ''
  let numPages = 0
  do {
    const page = await list(harness, 2, token)
    names.push(...page.adapters.map((adapter) => adapter.name))
    token = page.nextPageToken
    numPages++
  } while (token !== '')
  assert.deepEqual(names, ['a', 'b', 'c', 'd', 'e'])
  assert.equal(numPages, 3)
  assert.equal((await failure(list(harness, 0, 'x'))).code, status.INVALID_ARGUMENT)
  assert.equal((await failure(list(harness, -1, ''))).code, status.INVALID_ARGUMENT)
})

/** The next `count` messages of a watch, as name and state. */
async function next(watch: ClientReadableStream<WatchResponse>, count: number): Promise<unknown[]> {
  const seen: unknown[] = []
  while (seen.length < count) {
    const message: WatchResponse | null = watch.read()
    if (message === null) await new Promise((resolve) => watch.once('readable', resolve))
    else seen.push([message.adapter?.name, message.adapter?.state, message.isSnapshot, message.error])
  }
  return seen
}

test('watches: what is there, then every change', async () => {
  const harness = await start({
    onLoad: async ({ name }) => {
      if (name === 'broken') throw new LorikeetError('ADAPTER_REFUSED', { name, field: 'r', reason: 'is odd' })
    },
  })
  await load(harness, { name: 'first' })
  const watch = harness.adapters.watch({})
  watch.on('error', () => {})
  assert.deepEqual(await next(watch, 1), [['first', AdapterState.HOST, true, '']])
  const { adapter } = await load(harness, { name: 'second', wait: false })
  assert.equal(adapter?.state, AdapterState.LOADING)
  assert.deepEqual(await next(watch, 2), [
    ['second', AdapterState.LOADING, false, ''],
    ['second', AdapterState.HOST, false, ''],
  ])
  await failure(load(harness, { name: 'broken' }))
  assert.deepEqual(await next(watch, 2), [
    ['broken', AdapterState.LOADING, false, ''],
    ['broken', AdapterState.FAILED, false, "Adapter 'broken' is refused: r: is odd"],
  ])
  await call((done) => harness.adapters.unload({ name: 'first' }, done))
  assert.deepEqual(await next(watch, 1), [['first', AdapterState.REMOVED, false, '']])
  watch.cancel()
})
