// Collects primitives by canonical site. Files name modules of the HF implementation, which may fuse what a site keeps apart
// (model/module-map.ts); rows of outputs are handed to the sites they belong to, and an A over the shared input is shared.

import { invariant } from '../../core/invariant.ts'
import type { ModuleInfo, ModulePart } from '../../model/module-map.ts'
import type {
  Bottleneck,
  Circulant,
  Coupling,
  GatedLowRank,
  Kron,
  LowRank,
  PairRotate,
  Primitive,
  Rotate,
  Routed,
  Rows,
  SideAttention,
  Site,
  Sparse,
  StreamEdit,
  VectorSlot,
} from '../primitive.ts'

export class SiteBuilder {
  readonly #sites = new Map<Site, Primitive[]>()

  /** δ over a linear or head [out, in], or over an embedding with A [rank, vocab] and B [hidden, rank]. */
  addLowRank(module: ModuleInfo, delta: Omit<LowRank, 'kind'>): void {
    if (module.kind === 'embedding') {
      this.#add(siteOf(wholePart(module)), { kind: 'low-rank', ...delta })
      return
    }
    for (const part of module.parts) {
      const b = rowsOf(delta.b, delta.rank, part)
      const biasB = delta.biasB === null ? null : rowsOf(delta.biasB, 1, part)
      this.#add(siteOf(part), { kind: 'low-rank', ...delta, b, biasB })
    }
  }

  /** An element-wise vector over the module's outputs. */
  addOutputVector(module: ModuleInfo, slot: Exclude<VectorSlot, 'input-scale'>, values: Float32Array): void {
    if (module.kind === 'embedding') {
      this.#add(siteOf(wholePart(module)), { kind: 'vector', slot, values })
      return
    }
    for (const part of module.parts) this.#add(siteOf(part), { kind: 'vector', slot, values: rowsOf(values, 1, part) })
  }

  /** An element-wise vector over the module's inputs, which its parts share. */
  addInputScale(module: ModuleInfo, values: Float32Array): void {
    for (const part of module.parts) this.#add(siteOf(part), { kind: 'vector', slot: 'input-scale', values })
  }

  /**
   * The module's whole weight, [out, in], [vocab, hidden] or a norm's [width]. A second one counts: it was made from the first, a
   * base weight stored in the adapter file.
   */
  replaceWeight(module: ModuleInfo, weight: Float32Array): void {
    for (const part of module.parts) {
      const shape = module.kind === 'norm' ? [part.rowEnd - part.rowStart] : [part.rowEnd - part.rowStart, module.inFeatures]
      const width = module.kind === 'norm' ? 1 : module.inFeatures
      const others = this.#sites.get(siteOf(part))?.filter(({ kind }) => kind !== 'replace') ?? []
      this.#sites.set(siteOf(part), [...others, { kind: 'replace', weight: rowsOf(weight, width, part), shape }])
    }
  }

  addRows(module: ModuleInfo, rows: Omit<Rows, 'kind'>): void {
    this.#add(siteOf(wholePart(module)), { kind: 'rows', ...rows })
  }

  /** ΔW over a linear or head: [out, in], or the rows named (ascending), [n, in]. */
  addDense(module: ModuleInfo, delta: Float32Array, rowIds: Int32Array | null = null): void {
    const width = module.inFeatures
    for (const part of module.parts) {
      if (rowIds === null) {
        this.#add(siteOf(part), { kind: 'dense', delta: rowsOf(delta, width, part), rowIds })
        continue
      }
      const start = rowIds.findIndex((row) => row >= part.rowStart && row < part.rowEnd)
      if (start === -1) continue
      const own = rowIds.subarray(start).filter((row) => row < part.rowEnd)
      this.#add(siteOf(part), {
        kind: 'dense',
        delta: delta.subarray(start * width, (start + own.length) * width),
        rowIds: own.map((row) => row - part.rowStart),
      })
    }
  }

  /** Entries of ΔW [out, in] by row. */
  addSparse(module: ModuleInfo, { rowStarts, columns, values }: Omit<Sparse, 'kind'>): void {
    for (const part of module.parts) {
      const [start, end] = [rowStarts[part.rowStart] as number, rowStarts[part.rowEnd] as number]
      this.#add(siteOf(part), {
        kind: 'sparse',
        rowStarts: rowStarts.slice(part.rowStart, part.rowEnd + 1).map((from) => from - start),
        columns: columns.subarray(start, end),
        values: values.subarray(start, end),
      })
    }
  }

  /** False, and nothing added, where a block lies in two parts of the module. */
  addCirculant(module: ModuleInfo, { blockSize, kernel }: Omit<Circulant, 'kind'>): boolean {
    if (module.parts.some(({ rowStart, rowEnd }) => rowStart % blockSize !== 0 || rowEnd % blockSize !== 0)) return false
    // A row of blocks holds blockSize · (in / blockSize) values.
    const perOutput = module.inFeatures / blockSize
    for (const part of module.parts) {
      this.#add(siteOf(part), { kind: 'circulant', blockSize, kernel: rowsOf(kernel, perOutput, part) })
    }
    return true
  }

  /** False, and nothing added, where a block of outputs lies in two parts of the module. */
  addKron(module: ModuleInfo, kron: Omit<Kron, 'kind'>): boolean {
    const [height, width] = [kron.rightShape[0], kron.leftShape[1]]
    if (!module.parts.every(({ rowStart, rowEnd }) => rowStart % height === 0 && rowEnd % height === 0)) return false
    for (const part of module.parts) {
      const [from, to] = [part.rowStart / height, part.rowEnd / height]
      const left = kron.left.subarray(from * width, to * width)
      this.#add(siteOf(part), { kind: 'kron', ...kron, left, leftShape: [to - from, width] })
    }
    return true
  }

  /** Rotates the module's inputs, which its parts share. */
  addRotate(module: ModuleInfo, rotate: Omit<Rotate, 'kind'>): void {
    for (const part of module.parts) this.#add(siteOf(part), { kind: 'rotate', ...rotate })
  }

  /** Rotates pairs of outputs. False, and nothing added, where a group of 2·half outputs lies in two parts of the module. */
  addPairRotate(module: ModuleInfo, { half, cos, sin }: Omit<PairRotate, 'kind'>): boolean {
    const group = 2 * half
    if (module.parts.some(({ rowStart, rowEnd }) => rowStart % group !== 0 || rowEnd % group !== 0)) return false
    for (const part of module.parts) {
      this.#add(siteOf(part), { kind: 'pair-rotate', half, cos: rowsOf(cos, 1, part), sin: rowsOf(sin, 1, part) })
    }
    return true
  }

  addSideAttention(layer: number, attention: Omit<SideAttention, 'kind'>): void {
    this.#add(`layers.${layer}.attention`, { kind: 'side-attention', ...attention })
  }

  /** Acts behind those already at the hook. */
  addAtHook(site: Site, primitive: Bottleneck | Routed | StreamEdit): void {
    const present = this.#sites.get(site)
    if (present === undefined) this.#sites.set(site, [primitive])
    else present.push(primitive)
  }

  /** On a module that is one site. */
  addBottleneck(module: ModuleInfo, bottleneck: Omit<Bottleneck, 'kind'>): void {
    this.#add(siteOf(wholePart(module)), { kind: 'bottleneck', ...bottleneck })
  }

  /** A mixture on a linear that is one site. */
  addRouted(module: ModuleInfo, routed: Omit<Routed, 'kind'>): void {
    this.#add(siteOf(wholePart(module)), { kind: 'routed', ...routed })
  }

  /** Rows [numPositions, hidden] for the first tokens of the prompt. */
  addPositionRows(rows: Float32Array): void {
    this.#add('embed', { kind: 'position-rows', rows })
  }

  addGatedLowRank(module: ModuleInfo, delta: Omit<GatedLowRank, 'kind'>): void {
    for (const part of module.parts) {
      this.#add(siteOf(part), { kind: 'gated-low-rank', ...delta, b: rowsOf(delta.b, delta.rank, part) })
    }
  }

  addCoupling(coupling: Omit<Coupling, 'kind'>): void {
    this.#add('embed', { kind: 'coupling', ...coupling })
  }

  /** Sites in module order of first use. */
  build(): ReadonlyMap<Site, readonly Primitive[]> {
    return this.#sites
  }

  /** A site holds one primitive of a kind, and one vector a slot: nobody downstream has to define how two would combine. */
  #add(site: Site, primitive: Primitive): void {
    const present = this.#sites.get(site)
    if (present === undefined) {
      this.#sites.set(site, [primitive])
      return
    }
    const isTaken = present.some((other) => roleOf(other) === roleOf(primitive))
    invariant(!isTaken, `two ${roleOf(primitive)} primitives at ${site}`)
    present.push(primitive)
  }
}

/** Canonical part names are sites by construction of the module map. */
export function siteOf(part: ModulePart): Site {
  return part.site as Site
}

/** Rows [rowStart, rowEnd) of a row-major [rows, width], a view. */
export function rowsOf(values: Float32Array, width: number, part: ModulePart): Float32Array {
  return values.subarray(part.rowStart * width, part.rowEnd * width)
}

function wholePart(module: ModuleInfo): ModulePart {
  const [part, second] = module.parts
  invariant(part !== undefined && second === undefined, `${module.path} is one site`)
  return part
}

function roleOf(primitive: Primitive): string {
  return primitive.kind === 'vector' ? primitive.slot : primitive.kind
}
