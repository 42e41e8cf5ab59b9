import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ARENA_ALIGNMENT, Arena } from '../../src/backend/cuda/arena.ts'
import { createRandom } from '../support/random-adapter.ts'

const START = 1 << 20

test('freed neighbours become one gap again', () => {
  const arena = new Arena(START, 4 * ARENA_ALIGNMENT)
  const [a, b, c] = [1, 2, 3].map(() => arena.tryAllocate(ARENA_ALIGNMENT))
  assert.equal(a, START)
  arena.release(a!)
  arena.release(c!)
  assert.equal(arena.tryAllocate(3 * ARENA_ALIGNMENT), null)
  arena.release(b!)
  assert.equal(arena.tryAllocate(4 * ARENA_ALIGNMENT), START)
  assert.throws(() => arena.release(START + ARENA_ALIGNMENT), /allocated/)
})

test('random loads and unloads never overlap and never lose a byte', () => {
  const random = createRandom(3)
  const arena = new Arena(START, 64 * ARENA_ALIGNMENT)
  const live = new Map<number, number>()
  for (let step = 0; step < 2000; step++) {
    const [first] = live.keys()
    if (first !== undefined && random() < 0.5) {
      arena.release(first)
      live.delete(first)
    } else {
      const numBytes = 1 + Math.floor(random() * 12 * ARENA_ALIGNMENT)
      const start = arena.tryAllocate(numBytes)
      if (start === null) continue
      for (const [other, size] of live) assert.ok(start + numBytes <= other || other + size <= start, 'runs lie apart')
      live.set(start, numBytes)
    }
    arena.checkIntegrity()
  }
  for (const start of live.keys()) arena.release(start)
  assert.equal(arena.usedBytes, 0)
})
