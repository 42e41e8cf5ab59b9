// Compiles directories of other writers for the golden Llama.

import assert from 'node:assert/strict'
import { compileAdapter } from '../../src/adapter/compile.ts'
import type { CompiledAdapter, Primitive, Site } from '../../src/adapter/primitive.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { goldenModel } from './adapter-dir.ts'

const MODEL = goldenModel('llama')

export function compile(dir: string): CompiledAdapter {
  return compileAdapter(dir, MODEL, adapterId(1), 'test').adapter
}

/** Names the key or tensor at fault. */
export function refused(dir: string): string {
  try {
    compile(dir)
  } catch (thrown) {
    if (thrown instanceof LorikeetError && thrown.code === 'ADAPTER_REFUSED') return String(thrown.field)
    throw thrown
  }
  assert.fail('the adapter is refused')
}

export function sitesOf(entries: readonly (readonly [string, Primitive])[]): Map<Site, readonly Primitive[]> {
  return new Map(entries.map(([site, primitive]) => [site as Site, [primitive]]))
}

/** A bottleneck without biases, norms and gate. */
export const PLAIN = {
  kind: 'bottleneck',
  size: 8,
  downBias: null,
  upBias: null,
  normBefore: null,
  normAfter: null,
  normsSublayerSum: false,
  gate: null,
} as const
