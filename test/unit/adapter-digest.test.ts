import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { digestOf, kvDigestOf } from '../../src/adapter/digest.ts'
import type { Site } from '../../src/adapter/primitive.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { compileChanged, goldenModel, readAdapterTensors } from '../support/adapter-dir.ts'
import { maxAbsDiff } from '../support/golden.ts'
import type { Tensors } from '../support/model-dir.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { adapterOf, createRandom, randomLowRank, siteShapes } from '../support/random-adapter.ts'
import { f32 } from '../support/safetensors-file.ts'

describe('digest', () => {
  const { digest, kvDigest } = compileChanged('llama/lora_all').adapter

  it('is the same whatever the file calls or orders things', () => {
    const reversed = (tensors: Tensors) => Object.fromEntries(Object.entries(tensors).reverse())
    const same = compileChanged('llama/lora_all', {
      config: { base_model_name_or_path: 'elsewhere', lora_dropout: 0.1 },
      tensors: reversed,
    })
    assert.equal(same.adapter.digest, digest)
    assert.equal(same.adapter.kvDigest, kvDigest)
  })

  it('changes with one number of one tensor, with a scale, with the scope', () => {
    const key = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'
    const values = [...new Float32Array(Uint8Array.from(readAdapterTensors('llama/lora_all')[key]!.data).buffer)]
    values[17]! += 1e-3
    const changed = [
      compileChanged('llama/lora_all', { tensors: (tensors) => ({ ...tensors, [key]: f32([4, 64], values) }) }),
      compileChanged('llama/lora_all', { config: { lora_alpha: 17 } }),
      compileChanged('llama/lora_all', { config: { alora_invocation_tokens: [1, 2] } }),
      compileChanged('llama/lora_all', { config: { alora_invocation_tokens: [1, 3] } }),
    ].map(({ adapter }) => adapter.digest)
    assert.equal(new Set([digest, ...changed]).size, 5)
  })

  it('tells primitives apart whose bytes are the same', () => {
    const values = Float32Array.from([1, 2])
    const digests = [
      digestOf(new Map([['finalNorm', [{ kind: 'replace', weight: values, shape: [2] }]]]), null),
      digestOf(new Map([['finalNorm', [{ kind: 'vector', slot: 'bias', values }]]]), null),
      digestOf(new Map([['finalNorm', [{ kind: 'vector', slot: 'shift', values }]]]), null),
      digestOf(new Map([['layers.0.preAttn', [{ kind: 'vector', slot: 'shift', values }]]]), null),
    ]
    assert.equal(new Set(digests).size, 4)
  })

  it('of an adapter that changes the head alone shares the cache of one that changes the same keys and values', () => {
    const withHead = compileChanged('llama/lora_lmhead').adapter
    const keys = (tensors: Tensors) => Object.fromEntries(Object.entries(tensors).filter(([key]) => !key.includes('lm_head')))
    const without = compileChanged('llama/lora_lmhead', { config: { target_modules: ['q_proj'] }, tensors: keys }).adapter
    assert.notEqual(withHead.digest, without.digest)
    assert.equal(withHead.kvDigest, without.kvDigest)
  })
})

describe('kvDigest is empty exactly where keys and values stay those of the base', () => {
  const model = goldenModel('llama')
  const prompt = [5, 300, 17, 42, 42, 9, 128, 77, 201, 6, 8, 31]
  const sharedTokens = 8

  for (const [site, { numOut, numIn }] of siteShapes(model)) {
    // A norm takes no low-rank update; its weight is doubled instead.
    const isNorm = numIn === 1
    it(site, async () => {
      const weight = isNorm ? model.read(site).map((value) => value * 2) : null
      const primitive =
        weight === null
          ? randomLowRank(createRandom(8), site === 'embed' ? { numOut: numIn, numIn: numOut } : { numOut, numIn }, 4)
          : ({ kind: 'replace', weight, shape: [weight.length] } as const)
      const adapter = adapterOf(site, new Map<Site, readonly [typeof primitive]>([[site, [primitive]]]))
      const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 16 }, adapterBytes: 1 << 24 })
      const adapterSlot = backend.loadAdapter(adapter)!
      const driver = new PlanDriver(backend)
      const base = driver.add(prompt)
      await driver.step([{ sequence: base }])
      const prefix = { of: base, numTokens: sharedTokens }
      const chunks = [
        { sequence: driver.add(prompt, { adapterSlot }) },
        { sequence: driver.add(prompt, { adapterSlot, prefix }) },
      ]
      const [[alone], [onBaseCache]] = (await driver.step(chunks)) as [Float32Array[], Float32Array[]]
      const canShare = maxAbsDiff(alone!, onBaseCache!) < 1e-5
      assert.equal(kvDigestOf(adapter.sites, model.spec.numLayers) === '', canShare)
      await backend.dispose()
    })
  }
})
