// Bottlenecks whose weights other networks make, that are averaged, or that no library places as their paper does.

import { type OracleAdapter, SHAPE, type Sublayer } from './decoder.ts'
import {
  add,
  addMatrices,
  layerNorm,
  type Matrix,
  mapMatrix,
  matVec,
  type Norm,
  type Row,
  relu,
  scaled,
} from './linear-algebra.ts'
import { Draw, memo, type OracleMethod, Program, writeMixture } from './method.ts'

const { hidden } = SHAPE
const LAYERS = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
const hooks = (...names: readonly string[]) => LAYERS.flatMap((layer) => names.map((name) => `layers.${layer}.${name}`))

export interface Module {
  readonly down: Matrix
  readonly downBias: Row
  readonly up: Matrix
  readonly upBias: Row
}

export function drawModule(draw: Draw, size: number, width: number = hidden): Module {
  return {
    down: draw.matrix(size, width, 0.4),
    downBias: draw.row(size, 0.2),
    up: draw.matrix(width, size, 0.4),
    upBias: draw.row(width, 0.2),
  }
}

/** U relu(D x + b) + c */
export function module({ down, downBias, up, upBias }: Module, x: Row): number[] {
  return add(matVec(up, relu(add(matVec(down, x), downBias))), upBias)
}

export function putModule(
  program: Program,
  site: string,
  input: string,
  { down, downBias, up, upBias }: Module,
  more = {},
): void {
  const matrices = { down: program.tensor(down), downBias: program.tensor(downBias) }
  const expansion = { up: program.tensor(up), upBias: program.tensor(upBias) }
  program.add(site, 'bottleneck', { input, ...matrices, ...expansion, activation: 'relu', ...more })
}

const drawNorm = (draw: Draw): Norm => ({ weight: draw.row(hidden, 0.3, 1), bias: draw.row(hidden, 0.2), eps: 1e-6 })
const putNorm = (program: Program, { weight, bias, eps }: Norm) => ({
  weight: program.tensor(weight),
  bias: program.tensor(bias),
  eps,
})

/** f + U relu(D LN(n)) at attention and feed-forward network, and x + A(x) behind the embedding (arXiv:2104.08154). */
function ciat(): OracleMethod {
  const draw = new Draw(31)
  const sites = hooks('attnOut', 'mlpOut')
  const parts = memo(() => ({ inner: drawModule(draw, 6), norm: drawNorm(draw) }))
  for (const site of sites) parts(site)
  const embedding = drawModule(draw, 5)
  return {
    name: 'CIAT',
    adapter: {
      sublayer: (site, { f, normed }) => add(f, module(parts(site).inner, layerNorm(normed, parts(site).norm))),
      embed: (row) => add(row, module(embedding, row)),
    },
    write: () => {
      const program = new Program()
      putModule(program, 'embed', 'site-output', embedding)
      for (const site of sites) {
        const { inner, norm } = parts(site)
        putModule(program, site, 'normed', inner, { normBefore: putNorm(program, norm) })
      }
      return program.write('ciat')
    },
  }
}

interface Heads {
  readonly down: Matrix
  readonly downBias: Matrix
  readonly up: Matrix
  readonly upBias: Matrix
}

/** What linear heads over a code make: matrices from rows of their values. */
function generated(heads: Heads, code: Row, size: number): Module {
  const rows = (values: Row, width: number) =>
    Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width))
  return {
    down: rows(matVec(heads.down, code), hidden),
    downBias: matVec(heads.downBias, code),
    up: rows(matVec(heads.up, code), size),
    upBias: matVec(heads.upBias, code),
  }
}

function drawHeads(draw: Draw, size: number, code: number): Heads {
  return {
    down: draw.matrix(size * hidden, code, 0.15),
    downBias: draw.matrix(size, code, 0.1),
    up: draw.matrix(hidden * size, code, 0.15),
    upBias: draw.matrix(hidden, code, 0.1),
  }
}

/**
 * Adapters made for a task by a network over embeddings of task, layer and position, a norm behind them whose weights it makes, too
 * (arXiv:2106.04489). The file holds what it makes for one task.
 */
function hyperformer(): OracleMethod {
  const draw = new Draw(32)
  const [size, width] = [5, 8]
  const task = draw.row(width, 1)
  const heads = drawHeads(draw, size, width)
  const [gain, offset] = [draw.matrix(hidden, width, 0.1), draw.matrix(hidden, width, 0.1)]
  const sites = hooks('attnOut', 'mlpOut')
  const parts = memo(() => {
    const place = draw.row(width, 1)
    const code = relu(matVec(draw.matrix(width, 2 * width, 0.5), [...task, ...place]))
    const norm: Norm = { weight: matVec(gain, code).map((value) => value + 1), bias: matVec(offset, code), eps: 1e-6 }
    return { made: generated(heads, code, size), norm }
  })
  for (const site of sites) parts(site)
  return {
    name: 'Hyperformer',
    adapter: { sublayer: (site, { f }) => add(f, layerNorm(module(parts(site).made, f), parts(site).norm)) },
    write: () => {
      const program = new Program()
      for (const site of sites) {
        const { made, norm } = parts(site)
        putModule(program, site, 'sublayer', made, { normAfter: putNorm(program, norm) })
      }
      return program.write('hyperformer')
    },
  }
}

/** [task; layer] → relu → LN → four heads, beside the feed-forward network (arXiv:2310.11670); the file holds one task. */
function pha(): OracleMethod {
  const draw = new Draw(33)
  const [size, width] = [6, 8]
  const task = draw.row(width, 1)
  const inner = draw.matrix(2 * width, 2 * width, 0.5)
  const outer = draw.matrix(width, 2 * width, 0.5)
  const norm: Norm = { weight: draw.row(width, 0.2, 1), bias: draw.row(width, 0.2), eps: 1e-6 }
  const heads = drawHeads(draw, size, width)
  const sites = hooks('mlpOut')
  const parts = memo(() => {
    const code = layerNorm(matVec(outer, relu(matVec(inner, [...task, ...draw.row(width, 1)]))), norm)
    return generated(heads, code, size)
  })
  for (const site of sites) parts(site)
  return {
    name: 'PHA',
    adapter: { sublayer: (site, { f, normed }) => (sites.includes(site) ? add(f, module(parts(site), normed)) : f) },
    write: () => {
      const program = new Program()
      for (const site of sites) putModule(program, site, 'normed', parts(site))
      return program.write('pha')
    },
  }
}

/** One serial bottleneck of the weighted mean weights of several; the file names the members (AdaMix, AdapterSoup, LoRAHub). */
function averaged(name: string, seed: number, weights: readonly number[], input: 'sublayer' | 'sum'): OracleMethod {
  const draw = new Draw(seed)
  const sites = hooks('mlpOut')
  const parts = memo(() => weights.map(() => drawModule(draw, 5)))
  for (const site of sites) parts(site)
  const mean = memo((site): Module => {
    const matrices = (key: 'down' | 'up') =>
      parts(site)
        .map((each, e) => mapMatrix(each[key], (value) => value * weights[e]!))
        .reduce(addMatrices)
    const rows = (key: 'downBias' | 'upBias') =>
      parts(site)
        .map((each, e) => scaled(each[key], weights[e]!))
        .reduce(add)
    return { down: matrices('down'), downBias: rows('downBias'), up: matrices('up'), upBias: rows('upBias') }
  })
  const read = ({ f, residual }: Sublayer) => (input === 'sum' ? add(f, residual) : f)
  return {
    name,
    adapter: { sublayer: (site, rows) => (sites.includes(site) ? add(rows.f, module(mean(site), read(rows))) : rows.f) },
    write: () =>
      writeMixture(name, weights, (e) => {
        const program = new Program()
        for (const site of sites) putModule(program, site, input, parts(site)[e]!)
        return program
      }),
  }
}

/** Beside one feed-forward network and in series with the other, of other sizes (the search of arXiv:2301.12132 may choose both). */
export function serialAndParallel(draw: Draw): { readonly adapter: OracleAdapter; readonly put: (program: Program) => void } {
  const serial = LAYERS.map((layer) => drawModule(draw, 4 + layer))
  const parallel = LAYERS.map((layer) => drawModule(draw, 6 - layer))
  const layerOf = (site: string) => Number(site.split('.')[1])
  return {
    adapter: {
      sublayer: (site, { f, normed }) => {
        if (!site.endsWith('.mlpOut')) return f
        const beside = add(f, module(parallel[layerOf(site)]!, normed))
        return add(beside, module(serial[layerOf(site)]!, beside))
      },
    },
    put: (program) => {
      for (const site of hooks('mlpOut')) {
        putModule(program, site, 'normed', parallel[layerOf(site)]!)
        putModule(program, site, 'sublayer', serial[layerOf(site)]!)
      }
    },
  }
}

export const BOTTLENECK_METHODS: readonly OracleMethod[] = [
  ciat(),
  hyperformer(),
  pha(),
  averaged('AdaMix', 34, [0.25, 0.25, 0.25, 0.25], 'sublayer'),
  averaged('AdapterSoup', 35, [0.5, 0.5], 'sum'),
]
