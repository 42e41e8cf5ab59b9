// Unions: what one file holds acts together.

import { drawModule, module, putModule, serialAndParallel } from './bottleneck-methods.ts'
import { ROLES, SHAPE, widthsOf } from './decoder.ts'
import { add, matVec, scaled, times } from './linear-algebra.ts'
import { Draw, memo, type OracleMethod, Program } from './method.ts'
import { drawPrefix } from './prompt-methods.ts'

const LAYERS = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
const linears = (layers: readonly number[], ...roles: readonly string[]) =>
  layers.flatMap((layer) => roles.map((role) => `layers.${layer}.${role}`))

/** Low rank at `sites`, of a rank by layer. */
function lowRanks(draw: Draw, sites: readonly string[], rankOf: (layer: number) => number) {
  const parts = memo((site) => {
    const [, layer, role] = site.split('.')
    const [numOut, numIn] = widthsOf(role!)
    const rank = rankOf(Number(layer))
    return { a: draw.matrix(rank, numIn, 0.3), b: draw.matrix(numOut, rank, 0.3) }
  })
  for (const site of sites) parts(site)
  return {
    delta: (site: string, x: readonly number[], y: readonly number[]) =>
      sites.includes(site) ? add(y, scaled(matVec(parts(site).b, matVec(parts(site).a, x)), 1.5)) : y,
    put: (program: Program) => {
      for (const site of sites) program.lowRank(site, parts(site).a, parts(site).b, 1.5)
    },
  }
}

function biases(draw: Draw, sites: readonly string[]) {
  const parts = memo((site) => draw.row(widthsOf(site.split('.')[2]!)[0], 0.3))
  for (const site of sites) parts(site)
  return {
    add: (site: string, y: readonly number[]) => (sites.includes(site) ? add(y, parts(site)) : y),
    put: (program: Program) => {
      for (const site of sites) program.vector(site, 'bias', parts(site))
    },
  }
}

/** Groups of layers, each with its own of adapter, LoRA and biases, and a prefix in all (arXiv:2301.01821). */
function s4(): OracleMethod {
  const draw = new Draw(51)
  const prefix = drawPrefix(draw, 3)
  const lora = lowRanks(draw, linears([0], 'q', 'v'), () => 3)
  const bias = biases(draw, linears([1], ...ROLES))
  const inner = drawModule(draw, 5)
  return {
    name: 'S4',
    adapter: {
      prefix,
      linear: (site, x, y) => bias.add(site, lora.delta(site, x, y)),
      sublayer: (site, { f }) => (site === 'layers.0.mlpOut' ? add(f, module(inner, f)) : f),
    },
    write: () => {
      const program = new Program()
      program.prefix(prefix)
      lora.put(program)
      bias.put(program)
      putModule(program, 'layers.0.mlpOut', 'sublayer', inner)
      return program.write('s4')
    },
  }
}

/** A prefix and a parallel adapter of scale 4 (arXiv:2110.04366). */
function mam(): OracleMethod {
  const draw = new Draw(52)
  const prefix = drawPrefix(draw, 4)
  const inner = LAYERS.map(() => drawModule(draw, 6))
  const of = (site: string) => inner[Number(site.split('.')[1])]!
  return {
    name: 'MAM Adapter',
    adapter: {
      prefix,
      sublayer: (site, { f, normed }) => (site.endsWith('.mlpOut') ? add(f, scaled(module(of(site), normed), 4)) : f),
    },
    write: () => {
      const program = new Program()
      program.prefix(prefix)
      for (const layer of LAYERS) putModule(program, `layers.${layer}.mlpOut`, 'normed', inner[layer]!, { scale: 4 })
      return program.write('mam')
    },
  }
}

/** Adapters, LoRA and a prompt, of a size that differs by layer (arXiv:2206.04673). */
function noah(): OracleMethod {
  const draw = new Draw(53)
  const rows = draw.matrix(4, SHAPE.hidden, 0.8)
  const lora = lowRanks(draw, linears(LAYERS, 'q', 'v'), (layer) => 2 + 3 * layer)
  const inner = drawModule(draw, 7)
  return {
    name: 'NOAH',
    adapter: {
      softPrompt: rows,
      linear: lora.delta,
      sublayer: (site, { f }) => (site === 'layers.1.mlpOut' ? add(f, module(inner, f)) : f),
    },
    write: () => {
      const program = new Program()
      program.softPrompt(rows)
      lora.put(program)
      putModule(program, 'layers.1.mlpOut', 'sublayer', inner)
      return program.write('noah')
    },
  }
}

/** A parallel and a serial adapter at one hook, sizes by layer, and a prefix (arXiv:2301.12132). */
function autopeft(): OracleMethod {
  const draw = new Draw(54)
  const prefix = drawPrefix(draw, 3)
  const { adapter, put } = serialAndParallel(draw)
  return {
    name: 'AUTOPEFT',
    adapter: { ...adapter, prefix },
    write: () => {
      const program = new Program()
      program.prefix(prefix)
      put(program)
      return program.write('autopeft')
    },
  }
}

/** LoRA, adapter, biases and norms, each where a search put it (arXiv:2206.07382). */
function s3pet(): OracleMethod {
  const draw = new Draw(55)
  const lora = lowRanks(draw, ['layers.0.q', 'layers.1.v', 'layers.1.down'], () => 2)
  const bias = biases(draw, ['layers.0.k', 'layers.1.o'])
  const inner = drawModule(draw, 4)
  const factor = draw.row(SHAPE.hidden, 0.3, 1)
  return {
    name: 'S3PET',
    adapter: {
      linear: (site, x, y) => bias.add(site, lora.delta(site, x, y)),
      sublayer: (site, { f }) => (site === 'layers.1.attnOut' ? add(f, module(inner, f)) : f),
      norm: (site, y) => (site === 'layers.1.preMlp' ? times(factor, y) : y),
    },
    write: () => {
      const program = new Program()
      lora.put(program)
      bias.put(program)
      putModule(program, 'layers.1.attnOut', 'sublayer', inner)
      program.vector('layers.1.preMlp', 'output-scale', factor)
      return program.write('s3pet')
    },
  }
}

/** Few entries of some matrices, LoRA at others (arXiv:2303.08566). */
function sensitivityAware(): OracleMethod {
  const draw = new Draw(56)
  const lora = lowRanks(draw, linears(LAYERS, 'q', 'down'), () => 3)
  const sparse = memo((site) => {
    const [numOut, numIn] = widthsOf(site.split('.')[2]!)
    return draw.matrix(numOut, numIn, 0.5).map((row, i) => row.map((value, j) => ((i * 7 + j * 3) % 29 === 0 ? value : 0)))
  })
  const adapted = linears(LAYERS, 'v', 'up')
  for (const site of adapted) sparse(site)
  return {
    name: 'SPT (sensitivity-aware)',
    adapter: {
      linear: (site, x, y) => (adapted.includes(site) ? add(y, matVec(sparse(site), x)) : lora.delta(site, x, y)),
    },
    write: () => {
      const program = new Program()
      lora.put(program)
      for (const site of adapted) {
        const rows = sparse(site).map((row) => row.flatMap((value, column) => (value === 0 ? [] : [{ column, value }])))
        const rowStarts = [0]
        for (const row of rows) rowStarts.push(rowStarts.at(-1)! + row.length)
        program.add(site, 'sparse', {
          rowStarts: program.integers(rowStarts),
          columns: program.integers(rows.flat().map(({ column }) => column)),
          values: program.tensor(rows.flat().map(({ value }) => value)),
        })
      }
      return program.write('spt')
    },
  }
}

export const HYBRID_METHODS: readonly OracleMethod[] = [s4(), mam(), noah(), autopeft(), s3pet(), sensitivityAware()]
