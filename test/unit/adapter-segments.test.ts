import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { findSegments } from '../../src/adapter/segments.ts'

const TABLE: readonly { name: string; slots: number[]; numTokens?: number; segments: number[][] }[] = [
  { name: 'no token', slots: [], segments: [] },
  { name: 'base only', slots: [-1, -1, -1], segments: [] },
  { name: 'one adapter', slots: [3, 3], segments: [[3, 0, 2]] },
  {
    name: 'base first',
    slots: [-1, -1, 2, 2, 2, 0],
    segments: [
      [2, 2, 5],
      [0, 5, 6],
    ],
  },
  {
    name: 'base between: an activated adapter starts inside a sequence',
    slots: [-1, 1, 1, -1, 1],
    segments: [
      [1, 1, 3],
      [1, 4, 5],
    ],
  },
  {
    name: 'neighbouring sequences of one adapter are one segment',
    slots: [4, 4, 4, 5],
    segments: [
      [4, 0, 3],
      [5, 3, 4],
    ],
  },
  { name: 'stale entries past numTokens do not count', slots: [0, 0, 0, 7], numTokens: 2, segments: [[0, 0, 2]] },
]

describe('findSegments', () => {
  for (const { name, slots, numTokens, segments } of TABLE) {
    it(name, () => {
      const found = findSegments(Int32Array.from(slots), numTokens ?? slots.length)
      assert.deepEqual(
        found.map(({ slot, start, end }) => [slot, start, end]),
        segments,
      )
    })
  }
})
