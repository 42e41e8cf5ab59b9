// Enforces the import rules of docs/design.md: direction between folders, doors of native packages, no cycles, no barrels, file sizes.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const SIZE_CEILING_LINES = 500

interface Import {
  readonly from: string
  /** A file of the repository, or a package name. */
  readonly to: string
  readonly isTypeOnly: boolean
}

/** What a file may import beside its own folder: folders end in a slash. The first matching prefix decides. */
const MAY_IMPORT: readonly (readonly [importer: string, allowed: readonly string[]])[] = [
  ['src/main.ts', ['src/']],
  ['src/engine-thread.ts', ['src/']],
  ['src/loader-thread.ts', ['src/']],
  ['src/config.ts', []],
  ['src/errors.ts', []],
  ['src/config/', []],
  ['src/core/', []],
  ['src/kv/', ['src/core/']],
  ['src/metrics/', ['src/core/']],
  ['src/model/', ['src/core/']],
  ['src/tokenizer/', ['src/core/']],
  ['src/adapter/', ['src/core/', 'src/model/']],
  ['src/backend/backend.ts', ['src/core/']],
  ['src/backend/kv-budget.ts', ['src/core/', 'src/model/']],
  ['src/backend/create-backend.ts', ['src/backend/', 'src/core/', 'src/model/']],
  ['src/backend/null/', ['src/core/', 'src/model/', 'src/adapter/', 'src/backend/backend.ts', 'src/backend/batch-inputs.ts']],
  [
    'src/backend/reference/',
    ['src/core/', 'src/model/', 'src/adapter/', 'src/backend/backend.ts', 'src/backend/batch-inputs.ts'],
  ],
  ['src/backend/onnx/', ['src/core/', 'src/model/', 'src/adapter/', 'src/backend/backend.ts', 'src/backend/batch-inputs.ts']],
  ['src/backend/cuda/', ['src/core/', 'src/model/', 'src/adapter/', 'src/backend/backend.ts', 'src/backend/batch-inputs.ts']],
  ['src/engine/', ['src/core/', 'src/kv/', 'src/adapter/', 'src/metrics/', 'src/backend/backend.ts']],
  ['src/server/console/page/', []],
  ['src/server/', ['src/core/', 'src/tokenizer/', 'src/engine/engine-client.ts', 'src/engine/messages.ts', 'src/metrics/']],
  ['src/cli/delta.ts', ['src/cli/', 'src/core/', 'src/model/', 'src/adapter/']],
  ['src/cli/inspect.ts', ['src/cli/', 'src/core/', 'src/model/', 'src/adapter/']],
  [
    'src/cli/',
    [
      'src/core/',
      'src/config/',
      'src/model/',
      'src/backend/kv-budget.ts',
      'src/engine/engine-client.ts',
      'src/engine/messages.ts',
    ],
  ],
]

/** Imports of types that the table does not allow: they cost nothing at run time. */
const TYPE_ONLY: readonly (readonly [importer: string, imported: string])[] = [
  ['src/backend/backend.ts', 'src/adapter/primitive.ts'],
]

/** Each native or framework package has one door. */
const DOORS: Readonly<Record<string, string>> = {
  'onnxruntime-node': 'src/backend/onnx/',
  koffi: 'src/backend/cuda/',
  fastify: 'src/server/http/',
  '@fastify/cors': 'src/server/http/',
  '@grpc/grpc-js': 'src/server/grpc/',
  '@grpc/reflection': 'src/server/grpc/',
  'grpc-health-check': 'src/server/grpc/',
  '@opentelemetry/api': 'src/server/tracing/',
  '@opentelemetry/core': 'src/server/tracing/',
  '@opentelemetry/exporter-trace-otlp-proto': 'src/server/tracing/',
  '@opentelemetry/resources': 'src/server/tracing/',
  '@opentelemetry/sdk-trace-base': 'src/server/tracing/',
}

const IMPORT_STATEMENT = /^(?:import|export)\s+(type\s+)?(?:[^'"`;]*?\bfrom\s+)?['"]([^'"]+)['"]/gm
const DYNAMIC_IMPORT = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g

function filesUnder(folder: string): readonly string[] {
  const base = join(ROOT, folder)
  if (!existsSync(base)) return []
  return readdirSync(base, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .filter((file) => !file.includes('/generated/'))
    .sort()
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
}

function importsOf(file: string): readonly Import[] {
  const text = withoutComments(readFileSync(join(ROOT, file), 'utf8'))
  const target = (specifier: string) =>
    specifier.startsWith('.') ? relative(ROOT, resolve(ROOT, dirname(file), specifier)) : packageName(specifier)
  const statements = [...text.matchAll(IMPORT_STATEMENT)].map((match) => ({
    from: file,
    to: target(match[2]!),
    isTypeOnly: match[1] !== undefined || /^import\s*\{(\s*type\s[^,}]+,?)+\s*\}/.test(match[0]),
  }))
  const dynamic = [...text.matchAll(DYNAMIC_IMPORT)].map((match) => ({ from: file, to: target(match[1]!), isTypeOnly: false }))
  return [...statements, ...dynamic]
}

function packageName(specifier: string): string {
  const [scopeOrName = '', name = ''] = specifier.split('/')
  return scopeOrName.startsWith('@') ? `${scopeOrName}/${name}` : scopeOrName
}

/** The complaint about one import, or null. Pure, so that the rules themselves are tested below. */
function complaint({ from, to, isTypeOnly }: Import): string | null {
  const door = DOORS[to]
  if (door !== undefined && !from.startsWith(door)) return `${from} imports ${to}, whose door is ${door}`
  if (!to.startsWith('src/') && !to.startsWith('bench/') && !to.startsWith('test/')) return null
  if (from.startsWith('bench/')) return null
  if (!to.startsWith('src/')) return `${from} imports ${to}, which is outside src`
  if (to === 'src/errors.ts' || (to === 'src/config.ts' && isTypeOnly)) return null
  if (isTypeOnly && TYPE_ONLY.some(([importer, imported]) => importer === from && imported === to)) return null
  const rule = MAY_IMPORT.find(([importer]) => from === importer || (importer.endsWith('/') && from.startsWith(importer)))
  if (rule === undefined) return `${from} is in no folder of the import table`
  const [importer, allowed] = rule
  const isAllowed =
    (importer.endsWith('/') && to.startsWith(importer)) ||
    allowed.some((path) => to === path || (path.endsWith('/') && to.startsWith(path)))
  return isAllowed ? null : `${from} imports ${to}; ${importer} may import ${allowed.join(', ') || 'nothing'}`
}

const sources = filesUnder('src')
const imports = [...sources, ...filesUnder('bench')].flatMap(importsOf)

describe('imports', () => {
  it('follow the table', () => assert.deepEqual(imports.map(complaint).filter(Boolean), []))

  it('are found at all', () => {
    assert.ok(sources.length > 10)
    assert.ok(imports.some(({ from, to }) => from === 'src/core/invariant.ts' && to === 'src/errors.ts'))
  })

  it('name files that exist, with their .ts ending', () => {
    const missing = imports.filter(({ to }) => to.startsWith('src/') && !existsSync(join(ROOT, to)))
    assert.deepEqual(missing, [])
  })

  it('form no cycle', () => {
    const cycle = findCycle(
      new Map(sources.map((file) => [file, imports.filter(({ from }) => from === file).map(({ to }) => to)])),
    )
    assert.equal(cycle?.join(' -> ') ?? null, null)
  })

  it('include no barrel', () => {
    assert.deepEqual(
      sources.filter((file) => file.endsWith('/index.ts')),
      [],
    )
  })
})

describe('the rules themselves', () => {
  const broken: readonly Import[] = [
    { from: 'src/kv/block-pool.ts', to: 'src/engine/engine.ts', isTypeOnly: false },
    { from: 'src/server/http/app.ts', to: 'src/kv/block-pool.ts', isTypeOnly: true },
    { from: 'src/engine/engine.ts', to: 'src/backend/onnx/onnx-backend.ts', isTypeOnly: false },
    { from: 'src/backend/onnx/session.ts', to: 'src/backend/reference/reference-backend.ts', isTypeOnly: false },
    { from: 'src/engine/engine.ts', to: 'onnxruntime-node', isTypeOnly: true },
    { from: 'src/tokenizer/tokenizer.ts', to: 'fastify', isTypeOnly: false },
    { from: 'src/core/ids.ts', to: 'src/config.ts', isTypeOnly: false },
    { from: 'src/elsewhere/file.ts', to: 'src/core/ids.ts', isTypeOnly: false },
    { from: 'src/core/ids.ts', to: 'test/support/fake.ts', isTypeOnly: false },
  ]
  for (const one of broken) it(`refuse ${one.from} -> ${one.to}`, () => assert.notEqual(complaint(one), null))

  it('find a cycle', () => {
    const graph = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['a']],
    ])
    assert.deepEqual(findCycle(graph), ['a', 'b', 'c', 'a'])
  })
})

describe('files', () => {
  it(`have at most ${SIZE_CEILING_LINES} lines`, () => {
    const long = [...sources, ...filesUnder('bench')]
      .map((file) => ({ file, numLines: readFileSync(join(ROOT, file), 'utf8').split('\n').length - 1 }))
      .filter(({ numLines }) => numLines > SIZE_CEILING_LINES)
    assert.deepEqual(long, [])
  })

  it('are kebab-case', () => {
    const odd = sources.filter((file) => !/^(?:[a-z0-9]+(?:-[a-z0-9]+)*\/)*[a-z0-9]+(?:-[a-z0-9]+)*\.ts$/.test(file))
    assert.deepEqual(odd, [])
  })
})

/** Depth-first search; the first cycle as a path that ends where it begins. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): readonly string[] | null {
  const done = new Set<string>()
  const path: string[] = []
  const visit = (file: string): readonly string[] | null => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return null
    path.push(file)
    for (const next of graph.get(file) ?? []) {
      const cycle = visit(next)
      if (cycle !== null) return cycle
    }
    path.pop()
    done.add(file)
    return null
  }
  for (const file of graph.keys()) {
    const cycle = visit(file)
    if (cycle !== null) return cycle
  }
  return null
}
