// Adapters made by hand from seeded random arrays, for tests that need primitives and not a file format.

import type { CompiledAdapter, Primitive, Site, VectorSlot, VirtualTokens } from '../../src/adapter/primitive.ts'
import { virtualBytes } from '../../src/adapter/virtual-tokens.ts'
import { adapterId } from '../../src/core/ids.ts'
import type { LinearRole } from '../../src/model/decoder-spec.ts'
import type { ModelSource } from '../../src/model/model-source.ts'

/** Mulberry32: a small generator, the same on every machine. Values in [0, 1). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Uniform in [center - spread, center + spread). */
export function randomArray(random: () => number, length: number, spread: number, center = 0): Float32Array {
  return Float32Array.from({ length }, () => center + (random() * 2 - 1) * spread)
}

export interface SiteShape {
  readonly numOut: number
  readonly numIn: number
}

/** Canonical [out, in] of every site of a model that adapters may act on. */
export function siteShapes(model: ModelSource): ReadonlyMap<Site, SiteShape> {
  const shapes = new Map<Site, SiteShape>()
  for (const module of model.modules.values()) {
    if (module.refusal !== null) continue
    for (const { site, rowStart, rowEnd } of module.parts) {
      shapes.set(site as Site, { numOut: rowEnd - rowStart, numIn: module.inFeatures })
    }
  }
  return shapes
}

let lastId = 0

export function adapterOf(
  name: string,
  sites: ReadonlyMap<Site, readonly Primitive[]>,
  virtualTokens: VirtualTokens | null = null,
): CompiledAdapter {
  let numBytes = virtualBytes(virtualTokens)
  let maxRank = 0
  for (const primitive of [...sites.values()].flat()) {
    if (primitive.kind === 'low-rank') maxRank = Math.max(maxRank, primitive.rank)
    for (const value of Object.values(primitive)) if (ArrayBuffer.isView(value)) numBytes += value.byteLength
  }
  const id = adapterId(++lastId)
  const digests = { digest: name, kvDigest: name }
  return {
    id,
    name,
    kind: 'TEST',
    ...digests,
    maxRank,
    numBytes,
    sites,
    virtualTokens,
    invocationTokenIds: null,
    promptCoupling: 'none',
  }
}

const ALL_LINEARS: readonly LinearRole[] = ['q', 'k', 'v', 'o', 'gate', 'up', 'down']

/** Rank `rank` on `roles` of every layer, large enough to change greedy tokens. */
export function randomLora(
  model: ModelSource,
  seed: number,
  rank: number,
  roles: readonly LinearRole[] = ALL_LINEARS,
): CompiledAdapter {
  const random = createRandom(seed)
  const sites = new Map<Site, readonly Primitive[]>()
  for (const [site, shape] of siteShapes(model)) {
    const role = site.split('.')[2] as LinearRole | undefined
    if (role === undefined || !roles.includes(role)) continue
    sites.set(site, [randomLowRank(random, shape, rank)])
  }
  return adapterOf(`lora-r${rank}-s${seed}`, sites)
}

export function randomLowRank(random: () => number, { numOut, numIn }: SiteShape, rank: number, withBias = false): Primitive {
  return {
    kind: 'low-rank',
    rank,
    a: randomArray(random, rank * numIn, 0.3),
    b: randomArray(random, numOut * rank, 0.3),
    scale: 2 / rank,
    biasB: withBias ? randomArray(random, numOut, 0.2) : null,
  }
}

export function randomVector(random: () => number, shape: SiteShape, slot: VectorSlot): Primitive {
  const isScale = slot === 'input-scale' || slot === 'factor' || slot === 'output-scale'
  const length = slot === 'input-scale' ? shape.numIn : shape.numOut
  return { kind: 'vector', slot, values: randomArray(random, length, 0.3, isScale ? 1 : 0) }
}

/** Every primitive kind and slot at once: vectors and a bias on all linears, own norms, own rows and low rank at embeddings and head. */
export function randomEverything(model: ModelSource, seed: number): CompiledAdapter {
  const random = createRandom(seed)
  const { vocabSize, hiddenSize } = model.spec
  const sites = new Map<Site, readonly Primitive[]>()
  for (const [site, shape] of siteShapes(model)) {
    if (site === 'positions') continue
    if (site === 'embed') sites.set(site, embedPrimitives(random, vocabSize, hiddenSize))
    else if (site === 'lmHead') sites.set(site, [randomRows(random, vocabSize, hiddenSize), randomLowRank(random, shape, 3)])
    else if (shape.numIn === 1)
      sites.set(site, [{ kind: 'replace', weight: randomArray(random, shape.numOut, 0.3, 1), shape: [shape.numOut] }])
    else sites.set(site, linearPrimitives(random, shape))
  }
  return adapterOf(`everything-s${seed}`, sites)
}

function linearPrimitives(random: () => number, shape: SiteShape): readonly Primitive[] {
  const slots: readonly VectorSlot[] = ['input-scale', 'factor', 'bias', 'output-scale', 'shift']
  return [...slots.map((slot) => randomVector(random, shape, slot)), randomLowRank(random, shape, 5, true)]
}

/** At `embed`, A is [rank, vocab] and B [hidden, rank]. */
function embedPrimitives(random: () => number, vocabSize: number, hiddenSize: number): readonly Primitive[] {
  return [randomRows(random, vocabSize, hiddenSize), randomLowRank(random, { numOut: hiddenSize, numIn: vocabSize }, 2)]
}

/** Own rows for every third token id. */
function randomRows(random: () => number, vocabSize: number, hiddenSize: number): Primitive {
  const rowIds = Int32Array.from({ length: Math.ceil(vocabSize / 3) }, (_, i) => i * 3)
  return { kind: 'rows', rowIds, rows: randomArray(random, rowIds.length * hiddenSize, 0.3) }
}

/** A prefix alone. */
export function randomPrefix(model: ModelSource, seed: number, numTokens: number): CompiledAdapter {
  const random = createRandom(seed)
  const { numLayers, numKvHeads, headDim } = model.spec
  const arrays = () => Array.from({ length: numLayers }, () => randomArray(random, numTokens * numKvHeads * headDim, 1))
  return adapterOf(`prefix-t${numTokens}-s${seed}`, new Map(), {
    kind: 'prefix',
    numTokens,
    keys: arrays(),
    values: arrays(),
    positions: 'shift',
    gates: null,
  })
}

/** A soft prompt beside low-rank updates, which act on its rows, too. */
export function randomSoftPrompt(model: ModelSource, seed: number, numTokens: number): CompiledAdapter {
  const rows = randomArray(createRandom(seed), numTokens * model.spec.hiddenSize, 1)
  const { sites } = randomLora(model, seed, 3, ['q', 'v'])
  return adapterOf(`soft-prompt-t${numTokens}-s${seed}`, sites, { kind: 'soft-prompt', numTokens, rows, layerRows: null })
}
