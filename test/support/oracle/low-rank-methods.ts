// Methods whose update of a linear is a product of small factors.

import { ROLES, SHAPE, widthsOf } from './decoder.ts'
import {
  add,
  addMatrices,
  keepLargest,
  kron,
  type Matrix,
  mapMatrix,
  matMul,
  matVec,
  outer,
  type Row,
  scaled,
  softmax,
  times,
  transpose,
} from './linear-algebra.ts'
import { Draw, memo, type OracleMethod, Program, writeMixture } from './method.ts'

const LAYERS = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
const linears = (...roles: readonly string[]) => LAYERS.flatMap((layer) => roles.map((role) => `layers.${layer}.${role}`))
const ALL = linears(...ROLES)
const widthsAt = (site: string) => widthsOf(site.split('.')[2]!)

/** A method that gives each of its sites parts, adds `delta(parts, x)` to the output and says how the file holds the parts. */
function updates<T>(
  name: string,
  sites: readonly string[],
  make: (site: string) => T,
  delta: (parts: T, x: Row) => Row,
  put: (program: Program, site: string, parts: T) => void,
): OracleMethod {
  const parts = memo(make)
  for (const site of sites) parts(site)
  return {
    name,
    adapter: { linear: (site, x, y) => (sites.includes(site) ? add(y, delta(parts(site), x)) : y) },
    write: () => {
      const program = new Program()
      for (const site of sites) put(program, site, parts(site))
      return program.write(name.toLowerCase())
    },
  }
}

function factors(draw: Draw, site: string, rank: number): { a: number[][]; b: number[][] } {
  const [numOut, numIn] = widthsAt(site)
  return { a: draw.matrix(rank, numIn, 0.3), b: draw.matrix(numOut, rank, 0.3) }
}

const scaleColumns = (matrix: Matrix, by: Row) => matrix.map((row) => times(row, by))
const columnsOf = (matrix: Matrix, kept: readonly number[]) => matrix.map((row) => kept.map((j) => row[j]!))

/** s · B (g ⊙ A x); the file has no rank whose gate is zero (arXiv:2311.11696). */
function sora(): OracleMethod {
  const draw = new Draw(11)
  const scale = 16 / 6
  return updates(
    'SoRA',
    ALL,
    (site) => ({ ...factors(draw, site, 6), gate: draw.row(6, 1).map((value, i) => (i % 3 === 1 ? 0 : value)) }),
    ({ a, b, gate }, x) => scaled(matVec(b, times(gate, matVec(a, x))), scale),
    (program, site, { a, b, gate }) => {
      const kept = gate.flatMap((value, i) => (value === 0 ? [] : [i]))
      const gated = columnsOf(scaleColumns(b, gate), kept)
      program.lowRank(
        site,
        kept.map((i) => a[i]!),
        gated,
        scale,
      )
    },
  )
}

/** s · B M A x with a mixer M (arXiv:2406.11909). */
function moslora(): OracleMethod {
  const draw = new Draw(12)
  return updates(
    'MoSLoRA',
    ALL,
    (site) => ({ ...factors(draw, site, 4), mixer: draw.matrix(4, 4, 0.7) }),
    ({ a, b, mixer }, x) => scaled(matVec(b, matVec(mixer, matVec(a, x))), 2),
    (program, site, { a, b, mixer }) => program.lowRank(site, a, matMul(b, mixer), 2),
  )
}

/** (α / r) Σ_e ω_e B_e A_e x, ω = softmax(G e_task) (arXiv:2310.18339); one file serves one task. */
function moelora(): OracleMethod {
  const draw = new Draw(13)
  const [numExperts, rank, alpha] = [4, 8, 16]
  const embedding = draw.matrix(3, 6, 1)
  const task = embedding[2]!
  return updates(
    'MOELoRA',
    linears('q', 'v', 'up'),
    (site) => ({
      experts: Array.from({ length: numExperts }, () => factors(draw, site, rank / numExperts)),
      weights: softmax(matVec(draw.matrix(numExperts, 6, 1), task)),
    }),
    ({ experts, weights }, x) =>
      scaled(experts.map(({ a, b }, e) => scaled(matVec(b, matVec(a, x)), weights[e]!)).reduce(add), alpha / rank),
    (program, site, { experts, weights }) => {
      const a = experts.flatMap((expert) => expert.a)
      const b = transpose(experts.flatMap((expert, e) => transpose(mapMatrix(expert.b, (value) => value * weights[e]!))))
      program.lowRank(site, a, b, alpha / rank)
    },
  )
}

/** s Σ p_e B_e A_e x, p = softmax(W_g x); what `topK` leaves out is not made up for (arXiv:2309.05444). */
function molora(name: string, topK: number | null): OracleMethod {
  const draw = new Draw(14)
  const numExperts = 4
  return updates(
    name,
    ALL,
    (site) => ({
      experts: Array.from({ length: numExperts }, () => factors(draw, site, 3)),
      router: draw.matrix(numExperts, widthsAt(site)[1], 0.4),
    }),
    ({ experts, router }, x) => {
      const all = softmax(matVec(router, x))
      const weights = topK === null ? all : keepLargest(all, topK)
      return scaled(experts.map(({ a, b }, e) => scaled(matVec(b, matVec(a, x)), weights[e]!)).reduce(add), 2)
    },
    (program, site, { experts, router }) =>
      program.add(site, 'routed', {
        experts: experts.map(({ a, b }) => ({ primitive: 'low-rank', a: program.tensor(a), b: program.tensor(b), scale: 2 })),
        gate: { kind: 'linear', weight: program.tensor(router), ...(topK === null ? {} : { topK }) },
      }),
  )
}

/** s · (C ⊗ F) x (arXiv:2212.10650). */
function krona(): OracleMethod {
  const draw = new Draw(15)
  return updates(
    'KronA',
    ALL,
    (site) => {
      const [numOut, numIn] = widthsAt(site)
      return { left: draw.matrix(numOut / 8, 4, 0.4), right: draw.matrix(8, numIn / 4, 0.4) }
    },
    ({ left, right }, x) => scaled(matVec(kron(left, right), x), 0.5),
    (program, site, { left, right }) =>
      program.add(site, 'kron', { left: program.tensor(left), right: program.tensor(right), scale: 0.5 }),
  )
}

/** f + s · (C ⊗ F) n beside the feed-forward network, as a bottleneck of full width without activation. */
function kronaB(): OracleMethod {
  const draw = new Draw(16)
  const sites = LAYERS.map((layer) => `layers.${layer}.mlpOut`)
  const parts = memo(() => ({ left: draw.matrix(8, 16, 0.3), right: draw.matrix(8, 4, 0.3) }))
  const identity = Array.from({ length: SHAPE.hidden }, (_, i) => Array.from({ length: SHAPE.hidden }, (_, j) => +(i === j)))
  for (const site of sites) parts(site)
  return {
    name: 'KronA-B',
    adapter: {
      sublayer: (site, { f, normed }) => {
        if (!sites.includes(site)) return f
        const { left, right } = parts(site)
        return add(f, scaled(matVec(kron(left, right), normed), 0.5))
      },
    },
    write: () => {
      const program = new Program()
      for (const site of sites) {
        const { left, right } = parts(site)
        const matrices = { down: program.tensor(kron(left, right)), up: program.tensor(identity) }
        program.add(site, 'bottleneck', { input: 'normed', ...matrices, activation: 'identity', scale: 0.5 })
      }
      return program.write('krona-b')
    },
  }
}

/** ΔW of q and v = s Σ_i (a_i b_iᵀ) ⊗ (u_i v_iᵀ), a_i and b_i shared by the layers, and a bias (arXiv:2203.16329). */
function kadaptation(): OracleMethod {
  const draw = new Draw(17)
  const [numTerms, rows] = [4, 4]
  const shared = Array.from({ length: numTerms }, () => ({ a: draw.row(rows, 0.6), b: draw.row(rows, 0.6) }))
  return updates(
    'KAdaptation',
    linears('q', 'v'),
    (site) => {
      const [numOut, numIn] = widthsAt(site)
      const terms = shared.map((rule) => ({ ...rule, u: draw.row(numOut / rows, 0.5), v: draw.row(numIn / rows, 0.5) }))
      return { terms, bias: draw.row(numOut, 0.3) }
    },
    ({ terms, bias }, x) => {
      const weight = terms.map(({ a, b, u, v }) => kron(outer(a, b), outer(u, v))).reduce(addMatrices)
      return add(scaled(matVec(weight, x), 1.5), bias)
    },
    (program, site, { terms, bias }) => {
      const pairOf = (left: Row, right: Row) => left.flatMap((x) => right.map((y) => x * y))
      const a = terms.map(({ b, v }) => pairOf(b, v))
      program.lowRank(site, a, transpose(terms.map((term) => pairOf(term.a, term.u))), 1.5)
      program.vector(site, 'bias', bias)
    },
  )
}

/** Σ_i (B ⊙ Mb_i) (A ⊙ Ma_i) x over fixed random masks of one pair of factors (arXiv:2407.01320). */
function capaBoost(): OracleMethod {
  const draw = new Draw(18)
  const masked = (matrix: Matrix) => {
    const mask = draw.matrix(matrix.length, matrix[0]!.length, 1)
    return mapMatrix(matrix, (value, i, j) => (mask[i]![j]! > 0 ? value : 0))
  }
  return updates(
    'CapaBoost',
    ALL,
    (site) => {
      const { a, b } = factors(draw, site, 4)
      return [1, 2].map(() => ({ a: masked(a), b: masked(b) }))
    },
    (terms, x) => terms.map(({ a, b }) => matVec(b, matVec(a, x))).reduce(add),
    (program, site, terms) => {
      const a = terms.flatMap((term) => term.a)
      program.lowRank(site, a, transpose(terms.flatMap((term) => transpose(term.b))))
    },
  )
}

/** Updates merged one after the other: Σ_t s B_t A_t x, kept as one update of all their ranks (arXiv:2402.16141). */
function periodicLora(): OracleMethod {
  const draw = new Draw(19)
  return updates(
    'PeriodicLoRA',
    linears('q', 'k', 'v'),
    (site) => [1, 2, 3].map(() => factors(draw, site, 2)),
    (segments, x) => segments.map(({ a, b }) => scaled(matVec(b, matVec(a, x)), 2)).reduce(add),
    (program, site, segments) => {
      const a = segments.flatMap((segment) => segment.a)
      program.lowRank(site, a, transpose(segments.flatMap((segment) => transpose(segment.b))), 2)
    },
  )
}

/** The leading ranks of a LoRA trained at nested ranks, at the scale it was trained with (arXiv:2210.07558). */
function dylora(): OracleMethod {
  const draw = new Draw(20)
  const [rank, served, alpha] = [8, 3, 16]
  const leading = Array.from({ length: rank }, (_, i) => (i < served ? 1 : 0))
  return updates(
    'DyLoRA',
    linears('q', 'v'),
    (site) => factors(draw, site, rank),
    ({ a, b }, x) => scaled(matVec(b, times(leading, matVec(a, x))), alpha / rank),
    (program, site, { a, b }) => {
      const kept = [...leading.keys()].slice(0, served)
      program.lowRank(site, a.slice(0, served), columnsOf(b, kept), alpha / rank)
    },
  )
}

/** s (Σ w_i B_i) (Σ w_i A_i) x: each factor is summed for itself (arXiv:2307.13269); the file names the members. */
function loraHub(): OracleMethod {
  const draw = new Draw(21)
  const weights = [0.8, -0.3, 0.6]
  const sites = linears('q', 'v', 'up')
  const parts = memo((site) => weights.map(() => factors(draw, site, 3)))
  for (const site of sites) parts(site)
  const sumOf = (site: string, key: 'a' | 'b') =>
    parts(site)
      .map((member, i) => mapMatrix(member[key], (value) => value * weights[i]!))
      .reduce(addMatrices)
  return {
    name: 'LoRAHub',
    adapter: {
      linear: (site, x, y) =>
        sites.includes(site) ? add(y, scaled(matVec(sumOf(site, 'b'), matVec(sumOf(site, 'a'), x)), 2)) : y,
    },
    write: () =>
      writeMixture('LoRAHub', weights, (i) => {
        const program = new Program()
        for (const site of sites) program.lowRank(site, parts(site)[i]!.a, parts(site)[i]!.b, 2)
        return program
      }),
  }
}

export const LOW_RANK_METHODS: readonly OracleMethod[] = [
  sora(),
  moslora(),
  moelora(),
  molora('MoLORA', null),
  molora('MoLORA, the two best', 2),
  krona(),
  kronaB(),
  kadaptation(),
  capaBoost(),
  periodicLora(),
  dylora(),
  loraHub(),
]
