import type { ModuleInfo, ModulePart } from '../module-map.ts'

interface LinearOptions {
  readonly layer?: number
  readonly hasBias?: boolean
  readonly isConv1d?: boolean
  readonly refusal?: string
}

/** A linear whose output rows are one site, or several fused in the order given. */
export function linear(
  path: string,
  sites: string | readonly (readonly [site: string, rows: number])[],
  shape: { readonly out: number; readonly in: number },
  options: LinearOptions = {},
): ModuleInfo {
  return {
    path,
    kind: 'linear',
    outFeatures: shape.out,
    inFeatures: shape.in,
    isConv1d: options.isConv1d ?? false,
    hasBias: options.hasBias ?? false,
    parts: typeof sites === 'string' ? wholePart(sites, shape.out) : fusedParts(sites),
    layer: options.layer ?? null,
    refusal: options.refusal ?? null,
  }
}

export function norm(
  path: string,
  site: string,
  width: number,
  options: { layer?: number; hasBias?: boolean } = {},
): ModuleInfo {
  return { ...linear(path, site, { out: width, in: 1 }, options), kind: 'norm' }
}

export function embedding(path: string, site: string, numRows: number, width: number): ModuleInfo {
  return { ...linear(path, site, { out: numRows, in: width }), kind: 'embedding' }
}

export function head(path: string, vocabSize: number, hiddenSize: number): ModuleInfo {
  return { ...linear(path, 'lmHead', { out: vocabSize, in: hiddenSize }), kind: 'head' }
}

function wholePart(site: string, rows: number): readonly ModulePart[] {
  return [{ site, rowStart: 0, rowEnd: rows }]
}

function fusedParts(sites: readonly (readonly [site: string, rows: number])[]): readonly ModulePart[] {
  let rowStart = 0
  return sites.map(([site, rows]) => {
    const part = { site, rowStart, rowEnd: rowStart + rows }
    rowStart += rows
    return part
  })
}
