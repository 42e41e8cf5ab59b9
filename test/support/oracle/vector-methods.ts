// SSF (arXiv:2210.08823) and MoV (arXiv:2309.05444).

import { ROLES, SHAPE, widthsOf } from './decoder.ts'
import { add, keepLargest, matVec, type Row, scaled, softmax, times } from './linear-algebra.ts'
import { Draw, memo, type OracleMethod, Program } from './method.ts'

const LAYERS = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
const NORMS = [...LAYERS.flatMap((layer) => [`layers.${layer}.preAttn`, `layers.${layer}.preMlp`]), 'finalNorm']
const LINEARS = LAYERS.flatMap((layer) => ROLES.map((role) => `layers.${layer}.${role}`))

/** γ ⊙ y + β behind every operation: linears, norms and the embedding. */
function ssf(): OracleMethod {
  const draw = new Draw(1)
  const parts = memo((site) => {
    const role = site.split('.')[2]
    const width = role === undefined || role.startsWith('pre') ? SHAPE.hidden : widthsOf(role)[0]
    return { scale: draw.row(width, 0.3, 1), shift: draw.row(width, 0.2) }
  })
  const apply = (site: string, y: Row) => add(times(parts(site).scale, y), parts(site).shift)
  for (const site of ['embed', ...NORMS, ...LINEARS]) parts(site)
  return {
    name: 'SSF',
    adapter: {
      linear: (site, _, y) => (site === 'lmHead' ? y : apply(site, y)),
      norm: apply,
      embed: (row) => apply('embed', row),
    },
    write: () => {
      const program = new Program()
      for (const site of ['embed', ...NORMS, ...LINEARS]) {
        program.vector(site, 'output-scale', parts(site).scale)
        program.vector(site, 'shift', parts(site).shift)
      }
      return program.write('ssf')
    },
  }
}

const NUM_EXPERTS = 3

/** y ⊙ Σ p_e l_e with p = softmax(W_g x); what `topK` leaves out is not made up for. */
function mov(name: string, topK: number | null): OracleMethod {
  const draw = new Draw(2)
  const sites = LINEARS.filter((site) => /[.](k|v|down)$/.test(site))
  const parts = memo((site) => {
    const [numOut, numIn] = widthsOf(site.split('.')[2]!)
    const experts = Array.from({ length: NUM_EXPERTS }, () => draw.row(numOut, 0.5, 1))
    return { router: draw.matrix(NUM_EXPERTS, numIn, 0.4), experts }
  })
  for (const site of sites) parts(site)
  return {
    name,
    adapter: {
      linear: (site, x, y) => {
        if (!sites.includes(site)) return y
        const { router, experts } = parts(site)
        const all = softmax(matVec(router, x))
        const weights = topK === null ? all : keepLargest(all, topK)
        const mixed = experts.map((expert, e) => scaled(expert, weights[e]!)).reduce(add)
        return times(mixed, y)
      },
    },
    write: () => {
      const program = new Program()
      for (const site of sites) {
        const { router, experts } = parts(site)
        program.add(site, 'routed', {
          experts: experts.map((expert) => ({ primitive: 'vector', slot: 'output-scale', values: program.tensor(expert) })),
          gate: { kind: 'linear', weight: program.tensor(router), ...(topK === null ? {} : { topK }) },
        })
      }
      return program.write('mov')
    },
  }
}

export const VECTOR_METHODS: readonly OracleMethod[] = [ssf(), mov('MoV', null), mov('MoV, the two best', 2)]
