// Adapters whose numbers make each primitive the identity: rotations by nothing, updates of zero, closed gates.

import type { CompiledAdapter, Primitive, Site } from '../../src/adapter/primitive.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import { adapterOf, createRandom } from './random-adapter.ts'
import {
  hookAdapter,
  type LinearEdit,
  linearAdapter,
  randomBottleneck,
  randomCirculant,
  randomDense,
  randomEdit,
  randomKron,
  randomPairRotate,
  randomRotate,
  randomSide,
  randomSparse,
} from './random-primitives.ts'

const LINEARS: Readonly<Record<string, LinearEdit>> = {
  'no kron': (random, shape) => [zeroed(randomKron(random, shape, 2, 2), 'left')],
  'no rotation': (random, { numIn }) => [{ ...randomRotate(random, numIn, 4), blocks: unitBlocks(numIn, 4) }],
  'no pair rotation': (random, { numOut }) => [
    { ...zeroed(randomPairRotate(random, numOut, 2), 'sin'), cos: new Float32Array(numOut).fill(1) } as Primitive,
  ],
  'no circulant': (random, shape) => [zeroed(randomCirculant(random, shape, 4), 'kernel')],
  'no sparse': (random, shape) => [zeroed(randomSparse(random, shape, 2), 'values')],
  'no entries': (_, { numOut }) => [
    { kind: 'sparse', rowStarts: new Int32Array(numOut + 1), columns: new Int32Array(0), values: new Float32Array(0) },
  ],
  'no dense rows': (random, shape) => [zeroed(randomDense(random, shape, 3), 'delta')],
  'no bottleneck before': (random, { numIn }) => [
    randomBottleneck(random, { numIn, numOut: numIn }, { input: 'site-input', scale: 0 }),
  ],
}

/** Every kind once. */
export function idleKinds(model: ModelSource): readonly CompiledAdapter[] {
  const linears = Object.entries(LINEARS).map(([name, edit], i) => linearAdapter(model, name, 800 + i, edit))
  const hooks = hookAdapter(model, 'closed hooks', 900, (random, hidden) => ({
    attnOut: [randomBottleneck(random, { numIn: hidden, numOut: hidden }, { scale: 0 })],
    blockOut: [zeroed(randomEdit(random, hidden, 3, true), 'rotation')],
    attention: [{ ...randomSide(random, model, 3), gate: 0 } as Primitive],
  }))
  return [...linears, hooks, idleEmbedding(model)]
}

function idleEmbedding({ spec }: ModelSource): CompiledAdapter {
  const { hiddenSize } = spec
  const half = {
    size: 2,
    down: new Float32Array(hiddenSize).fill(1),
    downBias: new Float32Array(2),
    up: new Float32Array(hiddenSize),
    upBias: new Float32Array(hiddenSize / 2),
    activation: 'tanh' as const,
  }
  const primitives: readonly Primitive[] = [
    { ...randomRotate(createRandom(1), hiddenSize, 8), blocks: unitBlocks(hiddenSize, 8) },
    { kind: 'coupling', f: half, g: half },
    { kind: 'position-rows', rows: new Float32Array(3 * hiddenSize) },
  ]
  return adapterOf('idle embedding', new Map<Site, readonly Primitive[]>([['embed', primitives]]))
}

function zeroed(primitive: Primitive, field: string): Primitive {
  const { length } = (primitive as unknown as Readonly<Record<string, Float32Array>>)[field]!
  return { ...primitive, [field]: new Float32Array(length) }
}

function unitBlocks(width: number, blockSize: number): Float32Array {
  return Float32Array.from({ length: width * blockSize }, (_, i) =>
    (i % (blockSize * blockSize)) % (blockSize + 1) === 0 ? 1 : 0,
  )
}
