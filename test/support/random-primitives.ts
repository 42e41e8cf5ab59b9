// One seeded random adapter for each primitive of the IR beyond low rank, vectors, replaced and own rows.

import type {
  Bottleneck,
  CompiledAdapter,
  Gate,
  LayerNormWeights,
  LowRank,
  PooledGate,
  Primitive,
  Rotate,
  Site,
  Vector,
} from '../../src/adapter/primitive.ts'
import type { ModelSource } from '../../src/model/model-source.ts'
import {
  adapterOf,
  createRandom,
  randomArray,
  randomLowRank,
  randomVector,
  type SiteShape,
  siteShapes,
} from './random-adapter.ts'

export type Random = () => number

/** Primitives at a linear, by its role and layer; null = none there. */
export type LinearEdit = (random: Random, shape: SiteShape, role: string, layer: number) => readonly Primitive[] | null

/** Primitives at hooks of a layer. */
export type HookEdit = (
  random: Random,
  hidden: number,
  layer: number,
  model: ModelSource,
) => Readonly<Record<string, readonly Primitive[]>>

export function linearAdapter(model: ModelSource, name: string, seed: number, edit: LinearEdit): CompiledAdapter {
  const random = createRandom(seed)
  const sites = new Map<Site, readonly Primitive[]>()
  for (const [site, shape] of siteShapes(model)) {
    const [scope, layer, role] = site.split('.')
    if (scope !== 'layers' || role === undefined || shape.numIn === 1) continue
    const primitives = edit(random, shape, role, Number(layer))
    if (primitives !== null) sites.set(site, primitives)
  }
  return adapterOf(name, sites)
}

export function hookAdapter(model: ModelSource, name: string, seed: number, edit: HookEdit): CompiledAdapter {
  const random = createRandom(seed)
  const sites = new Map<Site, readonly Primitive[]>()
  for (let layer = 0; layer < model.spec.numLayers; layer++) {
    for (const [hook, primitives] of Object.entries(edit(random, model.spec.hiddenSize, layer, model))) {
      sites.set(`layers.${layer}.${hook}` as Site, primitives)
    }
  }
  return adapterOf(name, sites)
}

export function randomKron(random: Random, { numOut, numIn }: SiteShape, a: number, b: number): Primitive {
  const [c, e] = [numOut / a, numIn / b]
  return {
    kind: 'kron',
    leftShape: [a, b],
    rightShape: [c, e],
    left: randomArray(random, a * b, 0.3),
    right: randomArray(random, c * e, 0.3),
    scale: 0.7,
  }
}

/** Blocks near the unit matrix. */
export function randomRotate(random: Random, numIn: number, blockSize: number, isShared = false): Rotate {
  const length = (isShared ? blockSize : numIn) * blockSize
  const blocks = randomArray(random, length, 0.4).map((value, i) => {
    const within = i % (blockSize * blockSize)
    return value + (within % (blockSize + 1) === 0 ? 1 : 0)
  })
  return { kind: 'rotate', blockSize, blocks }
}

export function randomPairRotate(random: Random, numOut: number, half: number): Primitive {
  return { kind: 'pair-rotate', half, cos: randomArray(random, numOut, 0.4, 1), sin: randomArray(random, numOut, 0.5) }
}

export function randomCirculant(random: Random, { numOut, numIn }: SiteShape, blockSize: number): Primitive {
  return { kind: 'circulant', blockSize, kernel: randomArray(random, (numOut / blockSize) * numIn, 0.1) }
}

/** `perRow` entries in every `every`-th row. */
export function randomSparse(random: Random, { numOut, numIn }: SiteShape, perRow: number, every = 1): Primitive {
  const columns: number[] = []
  const rowStarts = Int32Array.from({ length: numOut + 1 }, (_, row) => {
    const start = columns.length
    if (row < numOut && row % every === 0) {
      const own = new Set<number>()
      while (own.size < perRow) own.add(Math.floor(random() * numIn))
      columns.push(...[...own].sort((a, b) => a - b))
    }
    return start
  })
  return { kind: 'sparse', rowStarts, columns: Int32Array.from(columns), values: randomArray(random, columns.length, 1) }
}

export function randomDense(random: Random, { numOut, numIn }: SiteShape, rowStep: number | null): Primitive {
  const rowIds = rowStep === null ? null : Int32Array.from({ length: Math.ceil(numOut / rowStep) }, (_, i) => i * rowStep)
  return { kind: 'dense', delta: randomArray(random, (rowIds?.length ?? numOut) * numIn, 0.2), rowIds }
}

export function randomGate(random: Random, width: number): PooledGate {
  return { weight: randomArray(random, width, 0.5), bias: Math.fround(random() - 0.5) }
}

function randomNorm(random: Random, width: number, eps: number): LayerNormWeights {
  return { weight: randomArray(random, width, 0.3, 1), bias: randomArray(random, width, 0.2), eps }
}

export function randomBottleneck(
  random: Random,
  { numIn, numOut }: SiteShape,
  changes: Partial<Bottleneck> & { withNorms?: boolean; withGate?: boolean } = {},
): Bottleneck {
  const { withNorms = false, withGate = false, ...given } = changes
  const size = given.size ?? 6
  return {
    kind: 'bottleneck',
    input: 'sum',
    size,
    down: randomArray(random, size * numIn, 0.3),
    downBias: randomArray(random, size, 0.3),
    up: randomArray(random, numOut * size, 0.2),
    upBias: randomArray(random, numOut, 0.1),
    activation: 'relu',
    scale: 1,
    normBefore: withNorms ? randomNorm(random, numIn, 1e-5) : null,
    normAfter: withNorms ? randomNorm(random, numOut, 1e-6) : null,
    normsSublayerSum: false,
    gate: withGate ? randomGate(random, numIn) : null,
    ...given,
  }
}

export function randomMix(random: Random, kind: Exclude<Gate['kind'], 'attention'>, numExperts: number, width: number): Gate {
  if (kind === 'constant') return { kind, weights: randomArray(random, numExperts, 0.3, 0.5) }
  const weight = randomArray(random, numExperts * width, 0.5)
  if (kind === 'prototype') return { kind, prototypes: weight, temperature: 0.8, topK: 2 }
  return { kind, weight, bias: randomArray(random, numExperts, 0.3), temperature: 1.3, topK: 2, renormalize: true }
}

export function randomFusion(random: Random, width: number): Gate {
  const matrix = () => randomArray(random, width * width, 0.15)
  const bias = () => randomArray(random, width, 0.1)
  return { kind: 'attention', query: matrix(), queryBias: bias(), key: matrix(), keyBias: bias(), value: matrix() }
}

export function randomSide(random: Random, { spec }: ModelSource, numTokens: number): Primitive {
  const rows = () => randomArray(random, numTokens * spec.numKvHeads * spec.headDim, 1)
  return { kind: 'side-attention', numTokens, keys: rows(), values: rows(), gate: 0.6 }
}

export function randomEdit(random: Random, hidden: number, rank: number, subtractsProjection: boolean): Primitive {
  return {
    kind: 'stream-edit',
    rank,
    source: randomArray(random, rank * hidden, 0.4),
    sourceBias: randomArray(random, rank, 0.3),
    rotation: randomArray(random, rank * hidden, 0.3),
    subtractsProjection,
    activation: subtractsProjection ? 'identity' : 'tanh',
    scope: { numFirst: 2, numLast: 3 },
  }
}

const square = (hidden: number): SiteShape => ({ numIn: hidden, numOut: hidden })

const lowRanks = (random: Random, shape: SiteShape): LowRank[] =>
  [2, 3, 1].map((rank) => randomLowRank(random, shape, rank, rank === 2) as LowRank)

const LINEARS: Readonly<Record<string, LinearEdit>> = {
  kron: (random, shape, role) => (role === 'k' ? null : [randomKron(random, shape, 4, 8)]),
  'kron-other-shape': (random, shape, role) => (role === 'q' || role === 'down' ? [randomKron(random, shape, 8, 2)] : null),
  rotate: (random, { numIn }) => [randomRotate(random, numIn, 8)],
  'rotate-shared': (random, { numIn }, role) => (role === 'q' || role === 'o' ? [randomRotate(random, numIn, 4, true)] : null),
  'rotate-replaced': (random, shape, role) =>
    role === 'v' || role === 'o'
      ? [
          randomRotate(random, shape.numIn, 8),
          {
            kind: 'replace',
            weight: randomArray(random, shape.numOut * shape.numIn, 0.15),
            shape: [shape.numOut, shape.numIn],
          },
          randomVector(random, shape, 'input-scale'),
        ]
      : null,
  'pair-rotate': (random, { numOut }) => [randomPairRotate(random, numOut, 4)],
  circulant: (random, shape, role) => (role === 'k' ? null : [randomCirculant(random, shape, 8)]),
  sparse: (random, shape) => [randomSparse(random, shape, 1)],
  'sparse-heavy': (random, shape) => [randomSparse(random, shape, Math.floor(shape.numIn / 3), 2)],
  dense: (random, shape, _, layer) => (layer % 2 === 0 ? [randomDense(random, shape, null)] : null),
  'dense-rows': (random, shape) => [randomDense(random, shape, 5)],
  'site-input': (random, shape, role) => {
    if (role === 'o' || role === 'down') return null
    const widths = square(shape.numIn)
    return [randomBottleneck(random, widths, { input: 'site-input' }), randomLowRank(random, shape, 3)]
  },
  'site-beside': (random, shape) => [
    randomBottleneck(random, shape, { input: 'site-beside', activation: 'tanh' }),
    randomVector(random, shape, 'shift'),
  ],
  'site-output': (random, { numOut }, role) =>
    role === 'down' || role === 'q' ? [randomBottleneck(random, square(numOut), { input: 'site-output', size: 3 })] : null,
  'gated-low-rank': (random, shape, role) =>
    role === 'q' || role === 'v'
      ? [
          {
            kind: 'gated-low-rank',
            rank: 4,
            a: randomArray(random, 4 * shape.numIn, 0.3),
            b: randomArray(random, 4 * shape.numOut, 0.3),
            gate: randomGate(random, shape.numIn),
          },
        ]
      : null,
  'routed-low-rank': (random, shape) => [
    { kind: 'routed', experts: lowRanks(random, shape), gate: randomMix(random, 'linear', 3, shape.numIn), sublayerWeight: 1 },
  ],
  'routed-arrow': (random, shape) => [
    {
      kind: 'routed',
      experts: lowRanks(random, shape),
      gate: randomMix(random, 'prototype', 3, shape.numIn),
      sublayerWeight: 1,
    },
  ],
  'routed-vectors': (random, shape) => [
    {
      kind: 'routed',
      experts: [1, 2, 3].map(() => randomVector(random, shape, 'output-scale') as Vector),
      gate: randomMix(random, 'constant', 3, shape.numIn),
      sublayerWeight: 1,
    },
    randomVector(random, shape, 'shift'),
  ],
  everything: (random, shape) => [
    randomRotate(random, shape.numIn, 4),
    ...(['input-scale', 'factor', 'bias', 'output-scale', 'shift'] as const).map((slot) => randomVector(random, shape, slot)),
    randomLowRank(random, shape, 3, true),
    randomKron(random, shape, 2, 2),
    randomKron(random, shape, 2, 4),
    randomSparse(random, shape, 2),
    randomDense(random, shape, 3),
    randomBottleneck(random, square(shape.numIn), { input: 'site-input', scale: 0.5 }),
    randomPairRotate(random, shape.numOut, 2),
    randomBottleneck(random, square(shape.numOut), { input: 'site-output', scale: 0.5 }),
  ],
}

const HOOKS: Readonly<Record<string, HookEdit>> = {
  bottleneck: (random, hidden, layer): Record<string, readonly Primitive[]> =>
    layer === 1
      ? {}
      : {
          attnOut: [randomBottleneck(random, square(hidden))],
          mlpOut: [randomBottleneck(random, square(hidden), { size: 9 })],
        },
  'bottleneck-normed': (random, hidden) => ({
    mlpOut: [
      randomBottleneck(random, square(hidden), { withNorms: true, input: 'residual', activation: 'silu', scale: 4 }),
      randomBottleneck(random, square(hidden), { withNorms: true, input: 'sum', normsSublayerSum: true, activation: 'gelu' }),
    ],
  }),
  'bottleneck-gated': (random, hidden) => ({
    attnOut: [
      randomBottleneck(random, square(hidden), { input: 'normed', withGate: true, scale: randomArray(random, hidden, 1) }),
    ],
    mlpOut: [randomBottleneck(random, square(hidden), { input: 'sublayer', withGate: true, activation: 'leaky-relu' })],
  }),
  'routed-bottlenecks': (random, hidden) => ({
    mlpOut: [
      {
        kind: 'routed',
        experts: [4, 6, 2].map((size) => randomBottleneck(random, square(hidden), { size, activation: 'sigmoid' })),
        gate: { ...randomMix(random, 'linear', 3, hidden), topK: null } as Gate,
        sublayerWeight: 0.9,
      },
    ],
  }),
  fusion: (random, hidden) => ({
    mlpOut: [
      {
        kind: 'routed',
        experts: [4, 6].map((size) => randomBottleneck(random, square(hidden), { size })),
        gate: randomFusion(random, hidden),
        sublayerWeight: 1,
      },
    ],
  }),
  'stream-edit': (random, hidden, layer): Record<string, readonly Primitive[]> =>
    layer === 0 ? {} : { blockOut: [randomEdit(random, hidden, 3, true)] },
  'stream-edit-direct': (random, hidden) => ({ blockOut: [randomEdit(random, hidden, 4, false)] }),
  'side-attention': (random, _, layer, model): Record<string, readonly Primitive[]> =>
    layer === 0 ? {} : { attention: [randomSide(random, model, 5)] },
}

function embeddingAdapter(model: ModelSource, seed: number): CompiledAdapter {
  const random = createRandom(seed)
  const { hiddenSize: hidden, vocabSize } = model.spec
  const half = (size: number) => ({
    size,
    down: randomArray(random, (size * hidden) / 2, 0.4),
    downBias: randomArray(random, size, 0.2),
    up: randomArray(random, (size * hidden) / 2, 0.4),
    upBias: randomArray(random, hidden / 2, 0.2),
    activation: 'relu' as const,
  })
  const table = { numOut: vocabSize, numIn: hidden }
  const head = { numOut: vocabSize, numIn: hidden }
  const sites = new Map<Site, readonly Primitive[]>([
    [
      'embed',
      [
        randomRotate(random, hidden, 8),
        randomSparse(random, table, 3, 2),
        randomDense(random, table, 7),
        { kind: 'coupling', f: half(5), g: half(7) },
        { kind: 'position-rows', rows: randomArray(random, 4 * hidden, 0.5) },
      ],
    ],
    [
      'lmHead',
      [
        randomRotate(random, hidden, 4),
        randomSparse(random, head, 3),
        randomKron(random, head, 8, 4),
        randomPairRotate(random, vocabSize, 8),
      ],
    ],
  ])
  return adapterOf('embedding', sites)
}

function softPromptLayers(model: ModelSource, seed: number): CompiledAdapter {
  const random = createRandom(seed)
  const { hiddenSize, numLayers } = model.spec
  const rows = () => randomArray(random, 6 * hiddenSize, 0.7)
  const layerRows = Array.from({ length: numLayers }, rows)
  return adapterOf('soft-prompt-layers', new Map(), { kind: 'soft-prompt', numTokens: 6, rows: rows(), layerRows })
}

/** `gated` makes it UniPELT's. */
function noShiftPrefix(model: ModelSource, seed: number, gated: boolean): CompiledAdapter {
  const random = createRandom(seed)
  const { numLayers, numKvHeads, headDim, hiddenSize } = model.spec
  const arrays = () => Array.from({ length: numLayers }, () => randomArray(random, 6 * numKvHeads * headDim, 1))
  const gate = () => ({ keys: randomGate(random, hiddenSize), values: randomGate(random, hiddenSize) })
  const gates = gated ? Array.from({ length: numLayers }, gate) : null
  const prefix = { kind: 'prefix', numTokens: 6, keys: arrays(), values: arrays(), positions: 'no-shift', gates } as const
  const adapter = adapterOf(gated ? 'prefix-gated' : 'prefix-no-shift', new Map(), prefix)
  return gated ? { ...adapter, promptCoupling: 'whole' } : adapter
}

const COUPLED: ReadonlySet<string> = new Set(['gated-low-rank', 'bottleneck-gated'])

/** Every kind once, by name, seeded. */
export function everyKind(model: ModelSource): readonly CompiledAdapter[] {
  const linears = Object.entries(LINEARS).map(([name, edit], i) => linearAdapter(model, name, 500 + i, edit))
  const hooks = Object.entries(HOOKS).map(([name, edit], i) => hookAdapter(model, name, 600 + i, edit))
  const others = [
    embeddingAdapter(model, 700),
    softPromptLayers(model, 701),
    noShiftPrefix(model, 702, false),
    noShiftPrefix(model, 703, true),
  ]
  return [...linears, ...hooks, ...others].map((adapter) =>
    COUPLED.has(adapter.name) ? { ...adapter, promptCoupling: 'whole' } : adapter,
  )
}
