// The reference's primitives against formulas written out as matrices or explicit loops in float64, from the papers and not from the code.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { couple } from '../../src/adapter/arithmetic/coupling.ts'
import { expertWeights } from '../../src/adapter/arithmetic/expert-weights.ts'
import { edited, isInScope } from '../../src/adapter/arithmetic/stream-edit.ts'
import { type SublayerRows, sublayerOutput } from '../../src/adapter/arithmetic/sublayer-hook.ts'
import type {
  Bottleneck,
  Circulant,
  Dense,
  Gate,
  GatedLowRank,
  Kron,
  LowRank,
  PairRotate,
  Primitive,
  Rotate,
  Routed,
  Sparse,
  StreamEdit,
  Vector,
} from '../../src/adapter/primitive.ts'
import { sortSite } from '../../src/adapter/site-primitives.ts'
import { addSideAttention } from '../../src/backend/reference/attention.ts'
import { applyLinear } from '../../src/backend/reference/linear.ts'
import type { SiteWeights } from '../../src/backend/reference/site-weights.ts'
import type { DecoderSpec } from '../../src/model/decoder-spec.ts'
import { createRandom, randomArray, randomLowRank } from '../support/random-adapter.ts'
import {
  randomBottleneck,
  randomCirculant,
  randomDense,
  randomEdit,
  randomFusion,
  randomGate,
  randomKron,
  randomMix,
  randomPairRotate,
  randomRotate,
  randomSide,
  randomSparse,
} from '../support/random-primitives.ts'

type Matrix = number[][]

const OUT = 12
const IN = 8
const random = createRandom(4242)
const shape = { numOut: OUT, numIn: IN }
const base: SiteWeights = {
  site: 'layers.0.q',
  kind: 'linear',
  ...shape,
  weight: randomArray(random, OUT * IN, 1),
  bias: randomArray(random, OUT, 1),
}
const inputs = [1, 2, 3].map(() => randomArray(random, IN, 1))

const zeros = (rows: number, columns: number): Matrix => Array.from({ length: rows }, () => new Array<number>(columns).fill(0))
const rowsOf = (values: Float32Array, columns: number): Matrix =>
  Array.from({ length: values.length / columns }, (_, i) => [...values.subarray(i * columns, (i + 1) * columns)])
const times = (matrix: Matrix, x: readonly number[]): number[] =>
  matrix.map((row) => row.reduce((sum, value, j) => sum + value * x[j]!, 0))
const multiply = (a: Matrix, b: Matrix): Matrix =>
  a.map((row) => b[0]!.map((_, j) => row.reduce((sum, value, k) => sum + value * b[k]![j]!, 0)))
const plus = (a: Matrix, b: Matrix): Matrix => a.map((row, i) => row.map((value, j) => value + b[i]![j]!))
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))
const softmax = (scores: readonly number[]): number[] => {
  const powers = scores.map(Math.exp)
  const sum = powers.reduce((total, power) => total + power, 0)
  return powers.map((power) => power / sum)
}

const W = rowsOf(base.weight, IN)
const bias = [...base.bias!]

function assertRows(found: readonly Float32Array[], expected: readonly (readonly number[])[]): void {
  assert.equal(found.length, expected.length)
  for (const [i, row] of found.entries()) {
    assert.equal(row.length, expected[i]!.length)
    row.forEach((value, j) => {
      assert.ok(Math.abs(value - expected[i]![j]!) < 1e-5, `row ${i}, ${j}: ${value} and ${expected[i]![j]}`)
    })
  }
}

/** The linear with these primitives is x W'ᵀ + b for each row. */
function assertWeight(primitives: readonly Primitive[], weight: Matrix): void {
  const expected = inputs.map((x) => times(weight, [...x]).map((value, i) => value + bias[i]!))
  assertRows(applyLinear(base, sortSite(primitives), inputs), expected)
}

test('kron: W + s · kron(left, right)', () => {
  for (const [a, b] of [
    [3, 2],
    [4, 8],
    [1, 1],
    [12, 4],
  ] as const) {
    const kron = randomKron(random, shape, a, b) as Kron
    const [left, right] = [rowsOf(kron.left, b), rowsOf(kron.right, IN / b)]
    const [c, e] = kron.rightShape
    const delta = zeros(OUT, IN).map((row, i) =>
      row.map((_, j) => kron.scale * left[Math.floor(i / c)]![Math.floor(j / e)]! * right[i % c]![j % e]!),
    )
    assertWeight([kron], plus(W, delta))
  }
})

test('circulant: each block is its first row, turned to the right by one a row', () => {
  for (const size of [1, 2, 4]) {
    const circulant = randomCirculant(random, shape, size) as Circulant
    const delta = zeros(OUT, IN)
    for (let i = 0; i < OUT / size; i++) {
      for (let j = 0; j < IN / size; j++) {
        const start = (i * (IN / size) + j) * size
        const row = [...circulant.kernel.subarray(start, start + size)]
        for (let k = 0; k < size; k++) {
          for (let t = 0; t < size; t++) delta[i * size + k]![j * size + t] = row[t]!
          row.unshift(row.pop()!)
        }
      }
    }
    assertWeight([circulant], plus(W, delta))
  }
})

test('sparse and dense differences are added to W', () => {
  const sparse = randomSparse(random, shape, 3, 2) as Sparse
  const delta = zeros(OUT, IN)
  for (let row = 0; row < OUT; row++) {
    for (let k = sparse.rowStarts[row]!; k < sparse.rowStarts[row + 1]!; k++)
      delta[row]![sparse.columns[k]!] = sparse.values[k]!
  }
  assertWeight([sparse], plus(W, delta))
  const dense = randomDense(random, shape, null) as Dense
  assertWeight([dense], plus(W, rowsOf(dense.delta, IN)))
  const someRows = randomDense(random, shape, 5) as Dense
  const placed = zeros(OUT, IN)
  someRows.rowIds!.forEach((row, i) => {
    placed[row] = rowsOf(someRows.delta, IN)[i]!
  })
  assertWeight([someRows, sparse], plus(plus(W, placed), delta))
})

test('rotate: W · blockdiag(R)ᵀ, updates reading what is not rotated', () => {
  for (const isShared of [false, true]) {
    const rotate = randomRotate(random, IN, 4, isShared) as Rotate
    const r = zeros(IN, IN)
    for (let i = 0; i < IN; i++) {
      for (let j = 0; j < IN; j++) {
        const block = Math.floor(i / 4)
        if (block === Math.floor(j / 4)) r[j]![i] = rotate.blocks[(isShared ? 0 : block * 16) + (i % 4) * 4 + (j % 4)]!
      }
    }
    assertWeight([rotate], multiply(W, r))
    const lowRank = randomLowRank(random, shape, 2) as LowRank
    const delta = multiply(rowsOf(lowRank.b, 2), rowsOf(lowRank.a, IN)).map((row) => row.map((value) => lowRank.scale * value))
    assertWeight([lowRank, rotate], plus(multiply(W, r), delta))
  }
})

test('pair-rotate: each pair of outputs, bias included, times [[cos, -sin], [sin, cos]]', () => {
  const turn = randomPairRotate(random, OUT, 3) as PairRotate
  const matrix = zeros(OUT, OUT)
  for (let group = 0; group < OUT; group += 6) {
    for (let j = group; j < group + 3; j++) {
      matrix[j]![j] = turn.cos[j]!
      matrix[j]![j + 3] = -turn.sin[j]!
      matrix[j + 3]![j + 3] = turn.cos[j + 3]!
      matrix[j + 3]![j] = turn.sin[j + 3]!
    }
  }
  const shift: Vector = { kind: 'vector', slot: 'shift', values: randomArray(random, OUT, 1) }
  const expected = inputs.map((x) => {
    const z = times(W, [...x]).map((value, i) => value + bias[i]!)
    return times(matrix, z).map((value, i) => value + shift.values[i]!)
  })
  assertRows(applyLinear(base, sortSite([shift, turn]), inputs), expected)
})

/** A(x) by the formula, gate given. */
function bottleneckOf(adapter: Bottleneck, x: readonly number[], act: (value: number) => number, gate = 1): number[] {
  const normed = adapter.normBefore === null ? [...x] : normOf(x, adapter.normBefore)
  const inner = times(rowsOf(adapter.down, x.length), normed).map((value, i) => act(value + adapter.downBias![i]!))
  const scale = (i: number) => (typeof adapter.scale === 'number' ? adapter.scale : adapter.scale[i]!)
  return times(rowsOf(adapter.up, adapter.size), inner).map((value, i) => gate * scale(i) * (value + adapter.upBias![i]!))
}

function normOf(x: readonly number[], { weight, bias: shift, eps }: NonNullable<Bottleneck['normBefore']>): number[] {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * weight[i]! + shift[i]!)
}

const relu = (x: number): number => Math.max(0, x)
const zip = (a: readonly number[], b: readonly number[], f: (x: number, y: number) => number) =>
  a.map((value, i) => f(value, b[i]!))
const sum = (a: readonly number[], b: readonly number[]) => zip(a, b, (x, y) => x + y)

test('bottlenecks before, beside and behind a linear', () => {
  const before = randomBottleneck(random, { numIn: IN, numOut: IN }, { input: 'site-input' })
  const beside = randomBottleneck(random, shape, { input: 'site-beside', activation: 'tanh', scale: 0.5 })
  const behind = randomBottleneck(random, { numIn: OUT, numOut: OUT }, { input: 'site-output', activation: 'leaky-relu' })
  const expected = inputs.map((input) => {
    const x = sum([...input], bottleneckOf(before, [...input], relu))
    const z = sum(sum(times(W, x), bias), bottleneckOf(beside, x, Math.tanh))
    return sum(
      z,
      bottleneckOf(behind, z, (value) => (value < 0 ? 0.01 * value : value)),
    )
  })
  assertRows(applyLinear(base, sortSite([behind, beside, before]), inputs), expected)
})

test('a gated low rank: the gate is the mean over the rows of the call', () => {
  const gated: GatedLowRank = {
    kind: 'gated-low-rank',
    rank: 2,
    a: randomArray(random, 2 * IN, 1),
    b: randomArray(random, 2 * OUT, 1),
    gate: randomGate(random, IN),
  }
  const { weight, bias: offset } = gated.gate
  const gates = inputs.map((x) => sigmoid(x.reduce((total, value, i) => total + value * weight[i]!, offset)))
  const gate = gates.reduce((total, value) => total + value, 0) / gates.length
  const delta = multiply(rowsOf(gated.b, 2), rowsOf(gated.a, IN)).map((row) => row.map((value) => gate * value))
  assertWeight([gated], plus(W, delta))
})

test('gates of mixtures: top-k of all, top-k of prototypes, constants; ties go to the lower index', () => {
  const linear = randomMix(random, 'linear', 4, IN) as Gate & { kind: 'linear' }
  const x = inputs[0]!
  const scores = times(rowsOf(linear.weight, IN), [...x]).map((value, i) => (value + linear.bias![i]!) / linear.temperature)
  const all = softmax(scores)
  const kept = [...all].sort((a, b) => b - a).slice(0, 2)
  const expect = (gate: Exclude<Gate, { kind: 'attention' }>, expected: readonly number[]) =>
    assertRows([Float32Array.from(expertWeights(gate, x))], [expected])
  expect({ ...linear, topK: null }, all)
  expect(
    { ...linear, renormalize: false },
    all.map((p) => (kept.includes(p) ? p : 0)),
  )
  expect(
    linear,
    all.map((p) => (kept.includes(p) ? p / (kept[0]! + kept[1]!) : 0)),
  )
  const arrow = randomMix(random, 'prototype', 4, IN) as Gate & { kind: 'prototype' }
  const aligned = times(rowsOf(arrow.prototypes, IN), [...x]).map(Math.abs)
  const best = [...aligned].sort((a, b) => b - a).slice(0, 2)
  const chosen = softmax(best.map((value) => value / arrow.temperature))
  expect(
    arrow,
    aligned.map((value) => chosen[best.indexOf(value)] ?? 0),
  )
  const even: Gate = { ...linear, weight: new Float32Array(4 * IN), bias: null, topK: 1 }
  expect(even as Gate & { kind: 'linear' }, [1, 0, 0, 0])
})

test('mixtures at a linear: outputs of low ranks, vectors in the output scale', () => {
  const gate = { ...randomMix(random, 'linear', 2, IN), topK: null } as Gate & { kind: 'linear' }
  const experts = [randomLowRank(random, shape, 2, true), randomLowRank(random, shape, 3)] as LowRank[]
  const weightsOf = (x: readonly number[]) =>
    softmax(times(rowsOf(gate.weight, IN), x).map((value, i) => (value + gate.bias![i]!) / gate.temperature))
  const mixed = inputs.map((x) => {
    const p = weightsOf([...x])
    return experts.reduce(
      (z, { a, b, rank, scale, biasB }, e) => {
        const y = times(rowsOf(b, rank), times(rowsOf(a, IN), [...x]))
        return z.map((value, i) => value + p[e]! * scale * (y[i]! + (biasB?.[i] ?? 0)))
      },
      sum(times(W, [...x]), bias),
    )
  })
  const routed: Routed = { kind: 'routed', experts, gate, sublayerWeight: 1 }
  assertRows(applyLinear(base, sortSite([routed]), inputs), mixed)
  const vectors = [1, 2].map((): Vector => ({ kind: 'vector', slot: 'output-scale', values: randomArray(random, OUT, 1) }))
  const scaled = inputs.map((x) => {
    const p = weightsOf([...x])
    return sum(times(W, [...x]), bias).map(
      (value, i) => value * (p[0]! * vectors[0]!.values[i]! + p[1]! * vectors[1]!.values[i]!),
    )
  })
  assertRows(applyLinear(base, sortSite([{ kind: 'routed', experts: vectors, gate, sublayerWeight: 1 }]), inputs), scaled)
})

const hidden = { numIn: IN, numOut: IN }
const hookRows = (): SublayerRows => {
  const rows = () => [1, 2].map(() => randomArray(random, IN, 1))
  return { f: rows(), residual: rows(), normed: rows() }
}

test('bottlenecks at a hook: every input, norms, a norm of the sum, one behind the other', () => {
  const rows = hookRows()
  const first = randomBottleneck(random, hidden, { withNorms: true, input: 'sum' })
  const second = randomBottleneck(random, hidden, { withNorms: true, normsSublayerSum: true, input: 'sublayer', scale: 2 })
  const third = randomBottleneck(random, hidden, { input: 'residual', scale: randomArray(random, IN, 1) })
  const fourth = randomBottleneck(random, hidden, { input: 'normed', withGate: true })
  const gates = rows.normed.map((n) =>
    sigmoid(n.reduce((total, v, i) => total + v * fourth.gate!.weight[i]!, fourth.gate!.bias)),
  )
  const expected = rows.f.map((row, i) => {
    const residual = [...rows.residual[i]!]
    let f = [...row]
    f = sum(f, normOf(bottleneckOf(first, sum(f, residual), relu), first.normAfter!))
    f = normOf(sum(bottleneckOf(second, f, relu), f), second.normAfter!)
    f = sum(f, bottleneckOf(third, residual, relu))
    return sum(f, bottleneckOf(fourth, [...rows.normed[i]!], relu, (gates[0]! + gates[1]!) / 2))
  })
  assertRows(sublayerOutput([first, second, third, fourth], rows), expected)
})

test('mixtures of bottlenecks: constant weights, and fusion by attention over their outputs', () => {
  const rows = hookRows()
  const experts = [3, 5].map((size) => randomBottleneck(random, hidden, { size }))
  const outputs = rows.f.map((f, i) => experts.map((each) => bottleneckOf(each, sum([...f], [...rows.residual[i]!]), relu)))
  const weights = Float32Array.of(0.3, 0.6)
  const constant: Routed = { kind: 'routed', experts, gate: { kind: 'constant', weights }, sublayerWeight: 0.5 }
  const plain = rows.f.map((f, i) =>
    [...f].map((value, j) => 0.5 * value + weights[0]! * outputs[i]![0]![j]! + weights[1]! * outputs[i]![1]![j]!),
  )
  assertRows(sublayerOutput([constant], rows), plain)
  const gate = randomFusion(random, IN) as Gate & { kind: 'attention' }
  const matrix = (values: Float32Array) => rowsOf(values, IN)
  const fused = rows.f.map((f, i) => {
    const query = sum(times(matrix(gate.query), sum([...f], [...rows.residual[i]!])), [...gate.queryBias])
    const scores = outputs[i]!.map((a) => {
      const key = sum(times(matrix(gate.key), a), [...gate.keyBias])
      return query.reduce((total, value, j) => total + value * key[j]!, 0)
    })
    const p = softmax(scores)
    const values = outputs[i]!.map((a) => times(matrix(gate.value), a))
    return [...f].map((value, j) => value + p[0]! * values[0]![j]! + p[1]! * values[1]![j]!)
  })
  assertRows(sublayerOutput([{ kind: 'routed', experts, gate, sublayerWeight: 1 }], rows), fused)
})

test('stream edits: LoReFT and DiReFT, on the first and last tokens of a prompt', () => {
  const h = inputs[0]!
  for (const subtracts of [true, false]) {
    const edit = randomEdit(random, IN, 3, subtracts) as StreamEdit
    const [source, rotation] = [rowsOf(edit.source, IN), rowsOf(edit.rotation, IN)]
    const target = sum(times(source, [...h]), [...edit.sourceBias]).map(subtracts ? (value) => value : Math.tanh)
    const step = subtracts ? zip(target, times(rotation, [...h]), (a, b) => a - b) : target
    const expected = [...h].map((value, j) => value + step.reduce((total, s, r) => total + s * rotation[r]![j]!, 0))
    assertRows([edited(edit, h)], [expected])
  }
  const inScope = (length: number) =>
    Array.from({ length: length + 3 }, (_, i) => i - 1).filter((i) => isInScope({ numFirst: 2, numLast: 3 }, i, length))
  assert.deepEqual(inScope(9), [0, 1, 6, 7, 8])
  assert.deepEqual(inScope(4), [0, 1, 2, 3])
  assert.deepEqual(inScope(1), [0])
})

test('coupling: y1 = x1 + F(x2), y2 = x2 + G(y1)', () => {
  const half = () => ({
    size: 3,
    down: randomArray(random, 3 * 4, 1),
    downBias: randomArray(random, 3, 1),
    up: randomArray(random, 3 * 4, 1),
    upBias: randomArray(random, 4, 1),
    activation: 'relu' as const,
  })
  const [f, g] = [half(), half()]
  const mlp = ({ down, downBias, up, upBias }: typeof f, x: readonly number[]) =>
    sum(times(rowsOf(up, 3), sum(times(rowsOf(down, 4), x), [...downBias]).map(relu)), [...upBias])
  const row = randomArray(random, 8, 1)
  const [x1, x2] = [[...row.subarray(0, 4)], [...row.subarray(4)]]
  const y1 = sum(x1, mlp(f, x2))
  const expected = [...y1, ...sum(x2, mlp(g, y1))]
  couple(row, { kind: 'coupling', f, g })
  assertRows([row], [expected])
})

test('side attention: a softmax of its own over unmasked keys, heads of a group sharing them', () => {
  const spec = { numHeads: 4, numKvHeads: 2, headDim: 3, attentionScale: 0.6 } as DecoderSpec
  const side = randomSide(random, { spec } as Parameters<typeof randomSide>[1], 5)
  assert.ok(side.kind === 'side-attention')
  const q = randomArray(random, 12, 1)
  const out = randomArray(random, 12, 1)
  const expected = [...out]
  for (let head = 0; head < 4; head++) {
    const kv = Math.floor(head / 2)
    const at = (values: Float32Array, token: number, i: number) => values[(token * 2 + kv) * 3 + i]!
    const scores = [0, 1, 2, 3, 4].map((token) =>
      [0, 1, 2].reduce((total, i) => total + 0.6 * q[head * 3 + i]! * at(side.keys, token, i), 0),
    )
    const p = softmax(scores)
    for (let i = 0; i < 3; i++) {
      expected[head * 3 + i]! += side.gate * p.reduce((total, weight, token) => total + weight * at(side.values, token, i), 0)
    }
  }
  addSideAttention(spec, side, q, out)
  assertRows([out], [expected])
})
