import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const ROOT = join(import.meta.dirname ?? '.', '../..')
const folder = mkdtempSync(join(tmpdir(), 'lorikeet-trace-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function trace(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'bench/main.ts', 'trace', ...args], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  return stdout
}

test('generate: the same flags give the same file, another seed another', () => {
  const args = [
    'generate',
    '--num-prompts',
    '200',
    '--request-rate',
    '10',
    '--cv',
    '2',
    '--num-adapters',
    '20',
    '--adapter-popularity',
    'zipf:1',
  ]
  const files = ['1', '1', '2'].map((seed, index) => {
    const file = join(folder, `${index}.jsonl`)
    trace(...args, '--seed', seed, '--save-result', file)
    return readFileSync(file, 'utf8')
  })
  assert.equal(files[0], files[1])
  assert.notEqual(files[0], files[2])
  const lines = files[0]!
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { t: number; input: number; key: string })
  assert.equal(lines.length, 200)
  assert.equal(lines.at(-1)?.t, 20)
  assert.ok(lines.every(({ t }, index) => index === 0 || t >= lines[index - 1]!.t))
  assert.ok(new Set(lines.map(({ key }) => key)).size > 5)
})

test('convert: a window of the Azure trace, four times faster, reads back', () => {
  const file = join(folder, 'window.jsonl')
  trace('convert', '--dataset', 'azure-llm', '--window', '60:120', '--time-scale', '4', '--save-result', file)
  const lines = readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { t: number })
  assert.ok(lines.every(({ t }) => t >= 0 && t < 15))
  assert.match(trace('stats', '--dataset', 'jsonl', '--dataset-path', file), new RegExp(`requests\\s+${lines.length}\\b`))
})

test('stats: the figures published for the conversation trace', () => {
  const printed = trace('stats', '--dataset', 'azure-llm')
  assert.match(printed, /requests\s+19366\n/)
  assert.match(printed, /span\s+3501\.7 s\n/)
  assert.match(printed, /rate\s+5\.53 req\/s\ngap CV\s+1\.09\n/)
})
