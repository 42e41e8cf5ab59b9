// The protos: nothing that was released changes, and the generated code is theirs.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(fileURLToPath(import.meta.url), '../../..')
const PROTO = join(ROOT, 'proto')
const GENERATED = join(ROOT, 'src/server/grpc/generated')
const scratch = mkdtempSync(join(tmpdir(), 'lorikeet-proto-'))
after(() => rmSync(scratch, { recursive: true }))

function buf(cwd: string, ...args: string[]): { status: number | null; text: string } {
  const { status, stdout, stderr } = spawnSync(join(ROOT, 'node_modules/.bin/buf'), args, { cwd, encoding: 'utf8' })
  return { status, text: stdout + stderr }
}

/** A copy of proto/ that a test may change. */
function copyOfProto(name: string): string {
  const copy = join(scratch, name)
  cpSync(PROTO, copy, { recursive: true })
  return copy
}

test('lint finds nothing', () => {
  assert.deepEqual(buf(PROTO, 'lint'), { status: 0, text: '' })
})

test('nothing that was released is broken', () => {
  assert.deepEqual(buf(PROTO, 'breaking', '--against', 'released.binpb'), { status: 0, text: '' })
})

test('the check finds a field that was taken away, and lets one be added', () => {
  const copy = copyOfProto('changed')
  const file = join(copy, 'lorikeet/v1/adapters.proto')
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replace('  bool pinned = 6;\n', '  bool pinned = 6;\n  bool new_field = 8;\n'))
  assert.equal(buf(copy, 'breaking', '--against', 'released.binpb').status, 0)
  writeFileSync(file, text.replace('  bool pinned = 6;\n', ''))
  const removed = buf(copy, 'breaking', '--against', 'released.binpb')
  assert.notEqual(removed.status, 0)
  assert.match(removed.text, /pinned/)
})

test('the committed code is what npm run proto writes', () => {
  const copy = copyOfProto('generate')
  symlinkSync(join(ROOT, 'node_modules'), join(scratch, 'node_modules'))
  assert.deepEqual(buf(copy, 'generate'), { status: 0, text: '' })
  const fresh = join(scratch, 'src/server/grpc/generated')
  assert.equal(
    buf(copy, 'build', '--exclude-source-info', '--as-file-descriptor-set', '-o', join(fresh, 'descriptors.binpb')).status,
    0,
  )
  const filesOf = (folder: string) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.\w+$/.test(name))
      .sort()
  assert.deepEqual(filesOf(fresh), filesOf(GENERATED))
  for (const name of filesOf(fresh)) {
    assert.ok(readFileSync(join(fresh, name)).equals(readFileSync(join(GENERATED, name))), `${name}: run npm run proto`)
  }
})
