import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { LorikeetError } from '../../src/errors.ts'
import { findNonFinite, openSafetensors, readTensorF32, readTensorI32 } from '../../src/model/safetensors.ts'
import { f32, tempDir, writeRaw, writeSafetensors } from '../support/safetensors-file.ts'

const dir = tempDir()
const path = join(dir, 'x.safetensors')

function assertRefused(act: () => unknown, reason: RegExp): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof LorikeetError, String(error))
    assert.equal(error.code, 'SAFETENSORS_INVALID')
    assert.match(error.message, reason)
    assert.match(error.message, /x\.safetensors/)
    return true
  })
}

function assertHeaderRefused(header: string, numDataBytes: number, reason: RegExp): void {
  writeRaw(path, header, new Uint8Array(numDataBytes))
  assertRefused(() => openSafetensors(path), reason)
}

const entry = (dtype: string, shape: readonly unknown[], begin: number, end: number) =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] })

test('reads names, shapes, offsets and metadata; tensors come in the order of the data', () => {
  const header = `{"__metadata__":{"format":"pt"},"b":${entry('F32', [1], 8, 12)},"a":${entry('F16', [2, 2], 0, 8)}}   `
  writeRaw(path, header, new Uint8Array(12))
  const { tensors, metadata, fileBytes } = openSafetensors(path)
  assert.deepEqual([...tensors.keys()], ['a', 'b'])
  assert.deepEqual(tensors.get('b'), {
    file: path,
    name: 'b',
    dtype: 'F32',
    shape: [1],
    byteOffset: 8 + header.length + 8,
    byteLength: 4,
  })
  assert.deepEqual([...metadata], [['format', 'pt']])
  assert.equal(fileBytes, 8 + header.length + 12)
})

test('reads every float dtype as float32', () => {
  writeSafetensors(path, {
    f16: { dtype: 'F16', shape: [2], data: new Uint8Array(Uint16Array.of(0x3c00, 0xc000).buffer) },
    bf16: { dtype: 'BF16', shape: [1], data: new Uint8Array(Uint16Array.of(0x4040).buffer) },
    f64: { dtype: 'F64', shape: [1], data: new Uint8Array(Float64Array.of(0.1).buffer) },
    f32: f32([2, 1], [1.5, -2.5]),
    none: f32([0, 3], []),
  })
  const { tensors } = openSafetensors(path)
  const read = (name: string) => [...readTensorF32(tensors.get(name)!)]
  assert.deepEqual(read('f16'), [1, -2])
  assert.deepEqual(read('bf16'), [3])
  assert.deepEqual(read('f64'), [Math.fround(0.1)])
  assert.deepEqual(read('f32'), [1.5, -2.5])
  assert.deepEqual(read('none'), [])
})

test('a 16-bit tensor larger than one conversion chunk arrives whole', () => {
  const bits = Uint16Array.from({ length: 600_001 }, (_, i) => 0x3f80 + (i % 128))
  writeSafetensors(path, { x: { dtype: 'BF16', shape: [bits.length], data: new Uint8Array(bits.buffer) } })
  const values = readTensorF32(openSafetensors(path).tensors.get('x')!)
  assert.ok(values.every((value, i) => value === 1 + (i % 128) / 128))
})

test('reads integers and refuses those beyond 32 bits', () => {
  writeSafetensors(path, {
    i64: { dtype: 'I64', shape: [2], data: new Uint8Array(BigInt64Array.of(-5n, 7n).buffer) },
    big: { dtype: 'I64', shape: [1], data: new Uint8Array(BigInt64Array.of(2n ** 40n).buffer) },
    u8: { dtype: 'U8', shape: [2], data: Uint8Array.of(200, 1) },
    i8: { dtype: 'I8', shape: [1], data: Uint8Array.of(255) },
    f32: f32([1], [1]),
  })
  const { tensors } = openSafetensors(path)
  assert.deepEqual([...readTensorI32(tensors.get('i64')!)], [-5, 7])
  assert.deepEqual([...readTensorI32(tensors.get('u8')!)], [200, 1])
  assert.deepEqual([...readTensorI32(tensors.get('i8')!)], [-1])
  assertRefused(() => readTensorI32(tensors.get('big')!), /1099511627776/)
  assertRefused(() => readTensorI32(tensors.get('f32')!), /F32 tensor where integers/)
  assertRefused(() => readTensorF32(tensors.get('u8')!), /U8 tensor where floating point/)
})

test('refuses files that are not there, no files, or too short', () => {
  assertRefused(() => openSafetensors(join(dir, 'no-x.safetensors')), /ENOENT/)
  writeFileSync(path, Uint8Array.of(1, 2, 3))
  assertRefused(() => openSafetensors(path), /3 bytes/)
  if (process.platform === 'win32') return
  const pipe = join(dir, 'pipe-x.safetensors')
  execFileSync('mkfifo', [pipe])
  assertRefused(() => openSafetensors(pipe), /regular file/)
})

test('refuses header lengths that lie', () => {
  writeRaw(path, '{}', new Uint8Array(0), 3n)
  assertRefused(() => openSafetensors(path), /truncated/)
  writeRaw(path, '{}', new Uint8Array(0), 2n ** 60n)
  assertRefused(() => openSafetensors(path), /limit of 100000000/)
})

test('refuses headers that are not one JSON object with each name once', () => {
  assertHeaderRefused('{"a":', 0, /not JSON/)
  assertHeaderRefused('[]', 0, /not a JSON object/)
  assertHeaderRefused('null', 0, /not a JSON object/)
  const tensor = entry('F32', [1], 0, 4)
  assertHeaderRefused(`{"a":${tensor},"\\u0061" : ${tensor}}`, 4, /tensor a appears twice/)
  assertHeaderRefused('{"a":7}', 0, /tensor a/)
  assertHeaderRefused('{"__metadata__":{"n":1}}', 0, /__metadata__\.n/)
  writeRaw(path, Uint8Array.of(0x7b, 0xff, 0x7d), new Uint8Array(0))
  assertRefused(() => openSafetensors(path), /not JSON/)
})

test('equal names at other depths are no duplicates, nor are braces inside strings structure', () => {
  writeRaw(
    path,
    `{"__metadata__":{"a":"\\"}{\\\\"},"a":${entry('F32', [1], 0, 4)},"dtype":${entry('F32', [1], 4, 8)}}`,
    new Uint8Array(8),
  )
  assert.deepEqual([...openSafetensors(path).tensors.keys()], ['a', 'dtype'])
})

test('refuses unknown dtypes, bad shapes and offsets that do not fit them', () => {
  assertHeaderRefused(`{"a":${entry('F12', [1], 0, 4)}}`, 4, /tensor a has unknown dtype "F12"/)
  assertHeaderRefused(`{"a":${entry('toString', [1], 0, 4)}}`, 4, /unknown dtype/)
  assertHeaderRefused(`{"a":${entry('F32', [-1], 0, 4)}}`, 4, /shape \[-1\]/)
  assertHeaderRefused(`{"a":${entry('F32', [0.5], 0, 2)}}`, 2, /shape \[0.5\]/)
  assertHeaderRefused(`{"a":${entry('F32', [2 ** 40, 2 ** 40], 0, 4)}}`, 4, /takes .* bytes/)
  assertHeaderRefused(`{"a":${entry('F32', [1], 0, 8)}}`, 8, /F32 \[1\] takes 4 bytes, data_offsets span 8/)
  assertHeaderRefused(`{"a":${entry('F32', [1], 4, 0)}}`, 4, /out of order/)
  assertHeaderRefused(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, 4, /data_offsets \[0\]/)
})

test('refuses overlaps, gaps, data beyond the file and data nobody owns', () => {
  const [first, second] = [entry('F32', [1], 0, 4), entry('F32', [1], 2, 6)]
  assertHeaderRefused(`{"a":${first},"b":${second}}`, 6, /tensor b overlaps/)
  assertHeaderRefused(`{"a":${first},"b":${entry('F32', [1], 8, 12)}}`, 12, /4 bytes before tensor b/)
  assertHeaderRefused(`{"a":${first}}`, 2, /truncated: tensor a/)
  assertHeaderRefused(`{"a":${first}}`, 9, /5 bytes at the end/)
})

test('a file cut after its header was read is refused, not read as zeros', () => {
  writeSafetensors(path, { a: f32([4], [1, 2, 3, 4]) })
  const tensor = openSafetensors(path).tensors.get('a')!
  writeFileSync(path, readFileSync(path).subarray(0, -8))
  assertRefused(() => readTensorF32(tensor), /truncated/)
})

test('finds the first value that is not finite', () => {
  assert.equal(findNonFinite(Float32Array.of(1, -0, 3.4e38)), -1)
  assert.equal(findNonFinite(Float32Array.of(1, Number.NaN, Infinity)), 1)
  assert.equal(findNonFinite(Float32Array.of(-Infinity)), 0)
})
