// Primitives at sites where they are rare, against the reference: replaced matrices, vectors at norms and at the head.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Primitive, Site, VectorSlot } from '../../src/adapter/primitive.ts'
import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { openModel } from '../../src/model/open-model.ts'
import { goldenModelDir, maxAbsDiff } from '../support/golden.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { adapterOf, createRandom, randomArray, randomLowRank, randomVector, siteShapes } from '../support/random-adapter.ts'

const TOLERANCE = 2e-3
const SHAPE = { blockSize: 4, kvCache: { numBlocks: 48 }, adapterBytes: 64 << 20 }

type Edit = (site: Site, shape: { numOut: number; numIn: number }, random: () => number) => readonly Primitive[] | null

const replaced = (random: () => number, { numOut, numIn }: { numOut: number; numIn: number }): Primitive => ({
  kind: 'replace',
  weight: randomArray(random, numOut * numIn, 0.15, numIn === 1 ? 1 : 0),
  shape: numIn === 1 ? [numOut] : [numOut, numIn],
})

const vectorsOf = (random: () => number, shape: { numOut: number; numIn: number }, slots: readonly VectorSlot[]) =>
  slots.map((slot) => randomVector(random, shape, slot))

const EDITS: Readonly<Record<string, Edit>> = {
  'replaced linears': (site, shape, random) =>
    site.endsWith('.q') || site.endsWith('.down') ? [replaced(random, shape), randomLowRank(random, shape, 3)] : null,
  'replaced linears with vectors': (site, shape, random) =>
    site.endsWith('.o')
      ? [replaced(random, shape), ...vectorsOf(random, shape, ['input-scale', 'factor', 'output-scale', 'shift'])]
      : null,
  'a replaced head': (site, shape, random) => (site === 'lmHead' ? [replaced(random, shape)] : null),
  'vectors at the head': (site, shape, random) =>
    site === 'lmHead'
      ? [
          ...vectorsOf(random, shape, ['input-scale', 'factor', 'bias', 'output-scale', 'shift']),
          randomLowRank(random, shape, 2, true),
        ]
      : null,
  'replaced tables': (site, shape, random) => (site === 'embed' || site === 'positions' ? [replaced(random, shape)] : null),
  'vectors at norms': (_site, shape, random) =>
    shape.numIn === 1 ? vectorsOf(random, shape, ['bias', 'output-scale', 'shift']) : null,
}

for (const modelName of ['llama', 'gemma2', 'gpt2', 'qwen3', 'olmo2']) {
  describe(`onnx on ${modelName}`, () => {
    for (const [name, edit] of Object.entries(EDITS)) test(name, () => compare(modelName, name, edit))
  })
}

async function compare(modelName: string, name: string, edit: Edit): Promise<void> {
  const model = openModel(goldenModelDir(modelName))
  const random = createRandom(7)
  const sites = new Map<Site, readonly Primitive[]>()
  for (const [site, shape] of siteShapes(model)) {
    const primitives = edit(site, shape, random)
    if (primitives !== null) sites.set(site, primitives)
  }
  const adapter = adapterOf(name, sites)
  const backends = [createReferenceBackend({ model, ...SHAPE }), await createOnnxBackend({ model, ...SHAPE, numThreads: 1 })]
  const [expected, found] = await Promise.all(
    backends.map(async (backend) => {
      const adapterSlot = backend.loadAdapter(adapter)!
      const driver = new PlanDriver(backend)
      const prompt = [5, 300, 17, 42, 42, 9]
      return driver.step(
        [adapterSlot, -1].map((slot) => ({ sequence: driver.add(prompt, { adapterSlot: slot }), allLogits: true })),
      )
    }),
  )
  expected!.flat().forEach((row, i) => {
    const difference = maxAbsDiff(row, found!.flat()[i]!)
    assert.ok(difference <= TOLERANCE, `row ${i}: logits differ by ${difference}`)
  })
  assert.ok(maxAbsDiff(expected![0]!.at(-1)!, expected![1]!.at(-1)!) > 1e-2, 'the adapter changes something')
  for (const backend of backends) await backend.dispose()
}
