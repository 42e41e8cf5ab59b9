// Methods that end as a difference to the base checkpoint: the oracle runs the tuned weights, the file holds the difference.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { f32, type TensorData, tempDir, writeSafetensors } from '../safetensors-file.ts'
import { baseWeight, hfName, type Role, SHAPE, widthsOf } from './decoder.ts'
import { add, addMatrices, type Matrix, mapMatrix, matMul, relu } from './linear-algebra.ts'
import { Draw, memo, type OracleMethod } from './method.ts'

const LAYERS = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
const sites = (...roles: readonly Role[]) => LAYERS.flatMap((layer) => roles.map((role) => `layers.${layer}.${role}`))

type Form = 'dense' | 'rows' | 'entries'

const integers = (values: readonly number[]): TensorData => ({
  dtype: 'I32',
  shape: [values.length],
  data: new Uint8Array(Int32Array.from(values).buffer),
})

function putMatrix(tensors: Record<string, TensorData>, name: string, delta: Matrix, form: Form): void {
  const width = delta[0]!.length
  if (form === 'dense') {
    tensors[`${name}.delta`] = f32([delta.length, width], delta.flat())
    return
  }
  if (form === 'rows') {
    const rows = [...delta.keys()].filter((i) => delta[i]!.some((value) => value !== 0))
    tensors[`${name}.rows`] = integers(rows)
    tensors[`${name}.delta`] = f32(
      [rows.length, width],
      rows.flatMap((i) => [...delta[i]!]),
    )
    return
  }
  const flat = delta.flat()
  const indices = [...flat.keys()].filter((i) => flat[i] !== 0)
  tensors[`${name}.indices`] = integers(indices)
  tensors[`${name}.values`] = f32(
    [indices.length],
    indices.map((i) => flat[i]!),
  )
}

interface Part {
  readonly site: string
  readonly form: Form
}

/** `delta` is added to the weight of each part. */
function differences(name: string, parts: readonly Part[], make: (site: string) => Matrix): OracleMethod {
  const delta = memo(make)
  for (const { site } of parts) delta(site)
  const names = new Map(parts.map(({ site }) => [hfName(site), site]))
  return {
    name,
    adapter: {
      weight: (key, base) => (names.has(key) ? addMatrices(base, delta(names.get(key)!)) : base),
    },
    write: () => {
      const tensors: Record<string, TensorData> = {}
      for (const { site, form } of parts) putMatrix(tensors, hfName(site), delta(site), form)
      return writeDelta(name, tensors)
    },
  }
}

function writeDelta(kind: string, tensors: Record<string, TensorData>): string {
  const dir = join(tempDir(), 'delta')
  mkdirSync(dir)
  writeFileSync(join(dir, 'lorikeet_delta.json'), JSON.stringify({ version: 1, kind }))
  writeSafetensors(join(dir, 'delta.safetensors'), tensors)
  return dir
}

const all = (form: Form, ...roles: readonly Role[]): readonly Part[] => sites(...roles).map((site) => ({ site, form }))

function full(draw: Draw, site: string, spread = 0.1): number[][] {
  const [numOut, numIn] = widthsOf(site.split('.')[2]!)
  return draw.matrix(numOut, numIn, spread)
}

/** Entries that a seeded mask keeps; `share` of them. */
function masked(draw: Draw, site: string, share: number): number[][] {
  const mask = full(draw, site, 1)
  return mapMatrix(full(draw, site, 0.5), (value, i, j) => (mask[i]![j]! > 1 - 2 * share ? value : 0))
}

/** δ = z ⊙ w with gates z of zero or one (arXiv:2012.07463). */
const uDiff = () => {
  const draw = new Draw(61)
  return differences('U-Diff pruning', all('entries', 'q', 'k', 'v', 'o', 'gate', 'up', 'down'), (site) =>
    masked(draw, site, 0.05),
  )
}

/** A fixed mask of few entries (arXiv:2111.09839). */
const fishMask = () => {
  const draw = new Draw(62)
  return differences('FishMask', all('entries', 'v', 'o', 'down'), (site) => masked(draw, site, 0.02))
}

/** The same entries of all matrices: those of least magnitude in the base (arXiv:2305.16742). */
const pafi = () => {
  const draw = new Draw(63)
  return differences('PaFi', all('entries', 'q', 'up'), (site) => {
    const base = baseWeight(hfName(site))
    const least = base
      .flat()
      .map(Math.abs)
      .toSorted((a, b) => a - b)
    const bound = least[Math.floor(0.03 * least.length)]!
    return mapMatrix(full(draw, site, 0.8), (value, i, j) => (Math.abs(base[i]![j]!) < bound ? value : 0))
  })
}

/** Sparse differences of some tensors, others whole (arXiv:2110.07560). */
const ltSft = () => {
  const draw = new Draw(64)
  const parts = [...all('entries', 'q', 'v', 'gate'), ...all('dense', 'o')]
  return differences('LT-SFT', parts, (site) => (site.endsWith('.o') ? full(draw, site) : masked(draw, site, 0.04)))
}

/** The mask changes from step to step, so that in the end every entry may differ (arXiv:2109.05687, variant F). */
const childTuning = () => {
  const draw = new Draw(65)
  return differences('Child-tuning', all('dense', 'q', 'k', 'v', 'down'), (site) => full(draw, site))
}

/** Gates of whole rows (arXiv:2012.07463, structured). */
const sDiff = () => {
  const draw = new Draw(66)
  return differences('S-Diff pruning', all('rows', 'q', 'o', 'down'), (site) =>
    full(draw, site, 0.4).map((row, i) => (i % 5 === 2 ? row : row.map(() => 0))),
  )
}

/** Chosen nodes of the feed-forward network: rows of gate and up, columns of down (arXiv:2205.01541). */
const far = () => {
  const draw = new Draw(67)
  const isChosen = (node: number) => node % 9 === 4
  const parts = [...all('rows', 'gate', 'up'), ...all('entries', 'down')]
  return differences('FAR', parts, (site) =>
    mapMatrix(full(draw, site, 0.4), (value, i, j) => (isChosen(site.endsWith('.down') ? j : i) ? value : 0)),
  )
}

/** W' = W + relu(W D) U, computed once (arXiv:2305.16742, HiWi on weights). */
const hiwi = () => {
  const draw = new Draw(68)
  return differences('HiWi', all('dense', 'up', 'down'), (site) => {
    const numIn = widthsOf(site.split('.')[2]!)[1]
    return matMul(matMul(baseWeight(hfName(site)), draw.matrix(numIn, 4, 0.4)).map(relu), draw.matrix(4, numIn, 0.3))
  })
}

/** λ H G Π H B v with the Walsh-Hadamard transform H, signs B, permutation Π and Gaussians G kept as the difference they make (arXiv:2012.13255). */
const intrinsicSaid = () => {
  const draw = new Draw(69)
  return differences('Intrinsic SAID', all('dense', 'q', 'v'), (site) => {
    const [numOut, numIn] = widthsOf(site.split('.')[2]!)
    const size = numOut * numIn
    const vector = Array.from({ length: size }, (_, i) => (i < 20 ? draw.row(1, 1)[0]! : 0))
    const signs = draw.row(size, 1).map(Math.sign)
    const order = draw
      .row(size, 1)
      .map((key, i) => ({ key, i }))
      .sort((a, b) => a.key - b.key)
    const mixed = walshHadamard(vector.map((value, i) => value * signs[i]!))
    const gaussian = draw.row(size, 1)
    const out = walshHadamard(order.map(({ i }, at) => mixed[i]! * gaussian[at]!))
    const flat = out.map((value) => (value * 0.1) / Math.sqrt(size))
    return Array.from({ length: numOut }, (_, i) => flat.slice(i * numIn, (i + 1) * numIn))
  })
}

function walshHadamard(values: readonly number[]): number[] {
  let out = [...values]
  for (let half = 1; half < out.length; half *= 2) {
    out = out.map((value, i) => ((i & half) === 0 ? value + out[i + half]! : out[i - half]! - value))
  }
  return out
}

/** Biases, of all modules or of those a search left (arXiv:2106.10199). */
function bitFit(name: string, seed: number, roles: readonly Role[], share: number): OracleMethod {
  const draw = new Draw(seed)
  const bias = memo((site) => {
    const width = widthsOf(site.split('.')[2]!)[0]
    const kept = draw.row(width, 1)
    return draw.row(width, 0.5).map((value, i) => (kept[i]! > 1 - 2 * share ? value : 0))
  })
  const adapted = sites(...roles)
  for (const site of adapted) bias(site)
  return {
    name,
    adapter: { linear: (site, _, y) => (adapted.includes(site) ? add(y, bias(site)) : y) },
    write: () => {
      const tensors: Record<string, TensorData> = {}
      for (const site of adapted) {
        tensors[`${hfName(site).replace('.weight', '.bias')}.delta`] = f32([bias(site).length], bias(site))
      }
      return writeDelta(name, tensors)
    },
  }
}

export const DELTA_METHODS: readonly OracleMethod[] = [
  uDiff(),
  fishMask(),
  pafi(),
  ltSft(),
  childTuning(),
  sDiff(),
  far(),
  hiwi(),
  intrinsicSaid(),
  bitFit('BitFit', 70, ['q', 'k', 'v', 'o', 'gate', 'up', 'down'], 1),
  bitFit('U-BitFit', 71, ['q', 'k', 'v', 'up', 'down'], 0.3),
  bitFit('S-BitFit', 72, ['q', 'up'], 1),
]
