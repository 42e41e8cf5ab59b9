// One entry of a native program as a primitive. Keys are the fields of the primitive's type; sizes come from the tensors' shapes.

import { at } from '../../../core/invariant.ts'
import type {
  Bottleneck,
  BottleneckActivation,
  Gate,
  HalfMlp,
  LayerNormWeights,
  LowRank,
  PooledGate,
  Primitive,
  Routed,
  Vector,
} from '../../primitive.ts'
import { show } from '../peft/config-fields.ts'
import type { EntryReader } from './entry-reader.ts'

type ReadKind<K extends Primitive['kind']> = (entry: EntryReader) => Extract<Primitive, { kind: K }>

const ACTIVATIONS: readonly BottleneckActivation[] = [
  'identity',
  'relu',
  'leaky-relu',
  'silu',
  'gelu',
  'gelu-tanh',
  'tanh',
  'sigmoid',
]

const READERS: { readonly [K in Primitive['kind']]: ReadKind<K> } = {
  'low-rank': readLowRank,
  vector: readVector,
  replace: (entry) => {
    const { values: weight, shape } = entry.optionalTensor('weight', 2) ?? entry.tensor('vector', 1)
    return { kind: 'replace', weight, shape }
  },
  rows: (entry) => ({ kind: 'rows', rowIds: ascending(entry, 'rowIds'), rows: entry.tensor('rows', 2).values }),
  kron: (entry) => {
    const [left, right] = [entry.tensor('left', 2), entry.tensor('right', 2)]
    const [leftShape, rightShape] = [pair(left.shape), pair(right.shape)]
    return { kind: 'kron', left: left.values, right: right.values, leftShape, rightShape, scale: entry.number('scale', 1) }
  },
  circulant: (entry) => {
    const { values: kernel, shape } = entry.tensor('kernel', 3)
    return { kind: 'circulant', kernel, blockSize: at(shape, 2) }
  },
  sparse: (entry) => ({
    kind: 'sparse',
    rowStarts: entry.integers('rowStarts'),
    columns: entry.integers('columns'),
    values: entry.vector('values'),
  }),
  dense: (entry) => ({
    kind: 'dense',
    delta: entry.tensor('delta', 2).values,
    rowIds: entry.value('rowIds') === null ? null : ascending(entry, 'rowIds'),
  }),
  rotate: (entry) => {
    const { values: blocks, shape } = entry.tensor('blocks', 3)
    return { kind: 'rotate', blocks, blockSize: at(shape, 2) }
  },
  'pair-rotate': (entry) => ({
    kind: 'pair-rotate',
    half: entry.count('half'),
    cos: entry.vector('cos'),
    sin: entry.vector('sin'),
  }),
  bottleneck: readBottleneck,
  'gated-low-rank': (entry) => {
    const a = entry.tensor('a', 2)
    return {
      kind: 'gated-low-rank',
      rank: at(a.shape, 0),
      a: a.values,
      b: entry.tensor('b', 2).values,
      gate: readPooledGate(entry.child('gate')),
    }
  },
  routed: readRouted,
  'stream-edit': (entry) => {
    const source = entry.tensor('source', 2)
    const scope = entry.child('scope')
    return {
      kind: 'stream-edit',
      rank: at(source.shape, 0),
      source: source.values,
      sourceBias: entry.vector('sourceBias'),
      rotation: entry.tensor('rotation', 2).values,
      subtractsProjection: entry.flag('subtractsProjection', true),
      activation: entry.word('activation', ACTIVATIONS, 'identity'),
      scope: {
        numFirst: scope.number('numFirst', 0),
        numLast: scope.number('numLast', 0),
        ...(scope.flag('isCappedAtHalf', false) ? { isCappedAtHalf: true as const } : {}),
      },
    }
  },
  'side-attention': (entry) => {
    const keys = entry.tensor('keys', 2)
    return {
      kind: 'side-attention',
      numTokens: at(keys.shape, 0),
      keys: keys.values,
      values: entry.tensor('values', 2).values,
      gate: entry.number('gate', 1),
    }
  },
  coupling: (entry) => ({ kind: 'coupling', f: readHalfMlp(entry.child('f')), g: readHalfMlp(entry.child('g')) }),
  'position-rows': (entry) => ({ kind: 'position-rows', rows: entry.tensor('rows', 2).values }),
}

/** Reads `primitive` and what belongs to it. Throws ADAPTER_REFUSED naming the key. */
export function readPrimitive(entry: EntryReader): Primitive {
  const kind = entry.word('primitive', Object.keys(READERS) as Primitive['kind'][])
  return READERS[kind](entry)
}

function readLowRank(entry: EntryReader): LowRank {
  const a = entry.tensor('a', 2)
  return {
    kind: 'low-rank',
    rank: at(a.shape, 0),
    a: a.values,
    b: entry.tensor('b', 2).values,
    scale: entry.number('scale', 1),
    biasB: entry.optionalVector('biasB'),
  }
}

function readVector(entry: EntryReader): Vector {
  const slot = entry.word('slot', ['input-scale', 'factor', 'bias', 'output-scale', 'shift'])
  return { kind: 'vector', slot, values: entry.vector('values') }
}

function readBottleneck(entry: EntryReader): Bottleneck {
  const down = entry.tensor('down', 2)
  const gate = entry.optionalChild('gate')
  const [before, after] = [entry.optionalChild('normBefore'), entry.optionalChild('normAfter')]
  return {
    kind: 'bottleneck',
    input: entry.word('input', ['sum', 'sublayer', 'residual', 'normed', 'site-input', 'site-beside', 'site-output']),
    size: at(down.shape, 0),
    down: down.values,
    downBias: entry.optionalVector('downBias'),
    up: entry.tensor('up', 2).values,
    upBias: entry.optionalVector('upBias'),
    activation: entry.word('activation', ACTIVATIONS),
    scale: entry.optionalVector('scales') ?? entry.number('scale', 1),
    normBefore: before === null ? null : readNorm(before),
    normAfter: after === null ? null : readNorm(after),
    normsSublayerSum: entry.flag('normsSublayerSum', false),
    gate: gate === null ? null : readPooledGate(gate),
  }
}

function readNorm(entry: EntryReader): LayerNormWeights {
  return { weight: entry.vector('weight'), bias: entry.vector('bias'), eps: entry.number('eps') }
}

export function readPooledGate(entry: EntryReader): PooledGate {
  return { weight: entry.vector('weight'), bias: entry.number('bias', 0) }
}

function readRouted(entry: EntryReader): Routed {
  const experts = entry.children('experts').map(readPrimitive)
  const gate = readGate(entry.child('gate'))
  const sublayerWeight = entry.number('sublayerWeight', 1)
  const mixture = { kind: 'routed', gate, sublayerWeight } as const
  if (experts.every((expert) => expert.kind === 'low-rank')) return { ...mixture, experts }
  if (experts.every((expert) => expert.kind === 'vector')) return { ...mixture, experts }
  if (experts.every((expert) => expert.kind === 'bottleneck')) return { ...mixture, experts }
  throw entry.refuse(entry.field('experts'), 'are not all of one kind: low-rank, vector or bottleneck')
}

function readGate(entry: EntryReader): Gate {
  switch (entry.word('kind', ['linear', 'prototype', 'attention', 'constant'])) {
    case 'linear':
      return {
        kind: 'linear',
        weight: entry.tensor('weight', 2).values,
        bias: entry.optionalVector('bias'),
        temperature: entry.number('temperature', 1),
        topK: entry.optionalCount('topK'),
        renormalize: entry.flag('renormalize', false),
      }
    case 'prototype':
      return {
        kind: 'prototype',
        prototypes: entry.tensor('prototypes', 2).values,
        temperature: entry.number('temperature', 1),
        topK: entry.count('topK'),
      }
    case 'attention':
      return {
        kind: 'attention',
        query: entry.tensor('query', 2).values,
        queryBias: entry.vector('queryBias'),
        key: entry.tensor('key', 2).values,
        keyBias: entry.vector('keyBias'),
        value: entry.tensor('value', 2).values,
      }
    case 'constant':
      return { kind: 'constant', weights: entry.vector('weights') }
  }
}

function readHalfMlp(entry: EntryReader): HalfMlp {
  const down = entry.tensor('down', 2)
  return {
    size: at(down.shape, 0),
    down: down.values,
    downBias: entry.vector('downBias'),
    up: entry.tensor('up', 2).values,
    upBias: entry.vector('upBias'),
    activation: entry.word('activation', ACTIVATIONS),
  }
}

function ascending(entry: EntryReader, key: string): Int32Array {
  const ids = entry.integers(key)
  const isAscending = ids.every((id, i) => id >= 0 && (i === 0 || id > (ids[i - 1] as number)))
  if (!isAscending) throw entry.refuse(entry.field(key), `${show([...ids])} do not ascend`)
  return ids
}

function pair(shape: readonly number[]): readonly [number, number] {
  return [at(shape, 0), at(shape, 1)]
}
