// Kinds that fold into low rank, vectors and replaced weights: what they refuse, and what their folds are exactly. That they
// compute what PEFT computes is shown by the golden adapters (test/backend).

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { orthonormalFactor } from '../../src/adapter/formats/peft/deft.ts'
import { compactFactor } from '../../src/adapter/formats/peft/hra.ts'
import { MersenneTwister } from '../../src/adapter/formats/peft/mersenne-twister.ts'
import { drawProjection } from '../../src/adapter/formats/peft/vera.ts'
import type { Kron, LowRank, Primitive, Replace, Site } from '../../src/adapter/primitive.ts'
import { arraysOf } from '../../src/adapter/primitive-arrays.ts'
import { compileChanged, goldenModel, readAdapterTensors } from '../support/adapter-dir.ts'
import type { Tensors } from '../support/model-dir.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'
import { f32, type TensorData } from '../support/safetensors-file.ts'

describe('folds', () => {
  it('ADALORA divides by the rank before pruning; a module without survivors has no site', () => {
    const { sites } = compileChanged('llama/adalora').adapter
    assert.equal(lowRank(sites, 'layers.0.q').scale, 16 / (6 + 1e-5))
    const pruned = compileChanged('llama/adalora_pruned').adapter.sites
    assert.ok(!pruned.has('layers.0.q'))
    assert.equal(lowRank(pruned, 'layers.0.v').rank, 4)
    assert.equal(lowRank(pruned, 'layers.0.v').scale, 16 / (6 + 1e-5))
    const unscaled = compileChanged('llama/adalora', { config: { lora_alpha: -1 } }).adapter.sites
    assert.equal(lowRank(unscaled, 'layers.0.q').scale, 6 / (6 + 1e-5))
  })

  it('QA-LoRA reads means of groups, times their number', () => {
    const pooled = randomArray(createRandom(8), 4 * 4, 0.5)
    const path = 'base_model.model.model.layers.0.self_attn.q_proj'
    const config = { target_modules: ['layers.0.self_attn.q_proj'], use_qalora: true, qalora_group_size: 16 }
    const tensors = (all: Tensors) => ({
      [`${path}.lora_A.weight`]: f32([4, 4], [...pooled]),
      [`${path}.lora_B.weight`]: all[`${path}.lora_B.weight`]!,
    })
    const { a } = lowRank(compileChanged('llama/lora_all', { config, tensors }).adapter.sites, 'layers.0.q')
    const x = randomArray(createRandom(9), 64, 1)
    for (let k = 0; k < 4; k++) {
      const found = x.reduce((sum, value, i) => sum + value * a[k * 64 + i]!, 0)
      let expected = 0
      for (let group = 0; group < 4; group++) {
        const mean = x.subarray(group * 16, (group + 1) * 16).reduce((sum, value) => sum + value, 0) / 16
        expected += pooled[k * 4 + group]! * mean * 4
      }
      assert.ok(Math.abs(found - expected) < 1e-5)
    }
  })

  it('IA3 splits a fused vector, and shares one over the inputs', () => {
    const { sites } = compileChanged('phi3/ia3_fused').adapter
    const fused = floats(readAdapterTensors('phi3/ia3_fused')['base_model.model.model.layers.0.self_attn.qkv_proj.ia3_l']!)
    const values = ['q', 'k', 'v'].map((role) => sites.get(`layers.0.${role}` as Site)?.[0])
    for (const vector of values) assert.ok(vector?.kind === 'vector' && vector.slot === 'output-scale')
    assert.deepEqual(
      values.flatMap((vector) => [...(vector as { values: Float32Array }).values]),
      [...fused],
    )
    const [gate, up] = [sites.get('layers.0.gate')?.[0], sites.get('layers.0.up')?.[0]]
    assert.ok(gate?.kind === 'vector' && up?.kind === 'vector' && gate.slot === 'input-scale')
    assert.equal(gate.values, up.values)
  })

  it('VERA modules of one width share their A, MISS modules too', () => {
    for (const [name, one, other] of [
      ['llama/vera', 'layers.0.q', 'layers.1.v'],
      ['llama/miss', 'layers.0.q', 'layers.1.up'],
    ] as const) {
      const { sites } = compileChanged(name).adapter
      assert.equal(lowRank(sites, one).a, lowRank(sites, other).a)
    }
  })

  it('LOHA as r² ranks and as a replaced weight are the same matrix', () => {
    const random = createRandom(5)
    const key = 'base_model.model.model.layers.0.self_attn.q_proj'
    const [w1a, w2a] = [randomArray(random, 64 * 2, 0.5), randomArray(random, 64 * 2, 0.5)]
    const [w1b, w2b] = [randomArray(random, 2 * 64, 0.5), randomArray(random, 2 * 64, 0.5)]
    const compile = (rank: number) => {
      const pad = (values: Float32Array, columns: boolean) =>
        f32(columns ? [64, rank] : [rank, 64], padded(values, columns, rank))
      const tensors = () => ({
        [`${key}.hada_w1_a`]: pad(w1a, true),
        [`${key}.hada_w1_b`]: pad(w1b, false),
        [`${key}.hada_w2_a`]: pad(w2a, true),
        [`${key}.hada_w2_b`]: pad(w2b, false),
      })
      const config = { target_modules: ['layers.0.self_attn.q_proj'], r: rank, alpha: 3 * rank }
      return compileChanged('llama/loha', { config, tensors }).adapter.sites.get('layers.0.q')![0]!
    }
    const thin = compile(2) as LowRank
    const dense = compile(6) as Replace
    assert.deepEqual([thin.kind, thin.rank, dense.kind], ['low-rank', 4, 'replace'])
    const weight = goldenModel('llama').read('layers.0.q')
    for (let i = 0; i < weight.length; i++) {
      let delta = 0
      for (let k = 0; k < 4; k++) delta += thin.b[Math.floor(i / 64) * 4 + k]! * thin.a[k * 64 + (i % 64)]!
      assert.ok(Math.abs(weight[i]! + thin.scale * delta - dense.weight[i]!) < 1e-6)
    }
  })

  it('LOKR by ranks and as a Kronecker product are the same matrix', () => {
    const key = 'base_model.model.model.layers.0.self_attn.q_proj.lokr'
    const [one, two] = [randomArray(createRandom(6), 4 * 4, 0.5), randomArray(createRandom(7), 16 * 16, 0.5)]
    // Of rank 1, hence also a product.
    const [left, right] = [randomArray(createRandom(8), 16, 0.5), randomArray(createRandom(9), 16, 0.5)]
    for (let i = 0; i < 256; i++) two[i] = left[Math.floor(i / 16)]! * right[i % 16]!
    const compile = (factors: Tensors) => {
      const config = { target_modules: ['layers.0.self_attn.q_proj'], r: 1, alpha: 3 }
      const tensors = () => ({ [`${key}_w1`]: f32([4, 4], [...one]), ...factors })
      return compileChanged('llama/lokr_full', { config, tensors }).adapter.sites.get('layers.0.q')![0]!
    }
    const whole = compile({ [`${key}_w2`]: f32([16, 16], [...two]) }) as Kron
    const thin = compile({ [`${key}_w2_a`]: f32([16, 1], [...left]), [`${key}_w2_b`]: f32([1, 16], [...right]) }) as LowRank
    assert.deepEqual([thin.kind, thin.rank, whole.kind], ['low-rank', 4, 'kron'])
    assert.deepEqual([whole.leftShape, whole.rightShape, whole.scale], [[4, 4], [16, 16], 3])
    assertNear(whole.left, [...one])
    for (let i = 0; i < 64 * 64; i++) {
      const [o, n] = [Math.floor(i / 64), i % 64]
      const delta = 3 * one[Math.floor(o / 16) * 4 + Math.floor(n / 16)]! * whole.right[(o % 16) * 16 + (n % 16)]!
      let found = 0
      for (let k = 0; k < 4; k++) found += thin.scale * thin.b[o * 4 + k]! * thin.a[k * 64 + n]!
      assert.ok(Math.abs(found - delta) < 1e-6)
    }
  })

  it('OFT of writers that stored no version is served as trained, with a warning', () => {
    const { adapter, warnings } = compileChanged('llama/oft', { config: { peft_version: undefined } })
    assert.notEqual(adapter.digest, compileChanged('llama/oft').adapter.digest)
    assert.match(warnings.join(), /peft_version/)
    const older = compileChanged('llama/oft', { config: { peft_version: '0.17.1' } })
    assert.equal(older.adapter.digest, adapter.digest)
    for (const config of [{ num_cayley_neumann_terms: 2 }, { use_cayley_neumann: false }])
      assert.deepEqual(compileChanged('llama/oft', { config: { ...config, peft_version: undefined } }).warnings, [])
  })

  it('a head that is replaced and adapted is adapted once, from the stored weight', () => {
    const random = createRandom(4)
    const stored = randomArray(random, 320 * 64, 1)
    const head = 'base_model.model.lm_head'
    const sitesWith = (block: readonly number[]) => {
      const tensors = () => ({
        [`${head}.base_layer.weight`]: f32([320, 64], [...stored]),
        [`${head}.miss_block`]: f32([40, 8, 8], block),
      })
      return compileChanged('llama/miss_bat', { config: { target_modules: ['lm_head'] }, tensors }).adapter.sites
    }
    const [unchanged, second] = sitesWith(new Array<number>(2560).fill(0)).get('lmHead') ?? []
    assert.ok(unchanged?.kind === 'replace' && second === undefined)
    assert.deepEqual(unchanged.weight, stored)
    const [changed] = sitesWith([...randomArray(random, 2560, 0.2)]).get('lmHead') ?? []
    assert.ok(changed?.kind === 'replace')
    assert.notDeepEqual(changed.weight, stored)
  })

  it('BONE is MISS under its old name', () => {
    const renamed = (tensors: Tensors) =>
      Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [key.replace('miss_block', 'bone_block'), tensor]))
    for (const name of ['llama/miss', 'llama/miss_bat']) {
      const config = { peft_type: 'BONE', mini_r: undefined, miss_dropout: undefined }
      const bone = compileChanged(name, { config, tensors: renamed }).adapter
      assert.equal(bone.digest, compileChanged(name).adapter.digest)
    }
  })

  it('an adapter at its start changes nothing', () => {
    const filled = (value: (key: string) => number) => (all: Tensors) =>
      Object.fromEntries(
        Object.entries(all).map(([key, tensor]) =>
          tensor.dtype === 'F32' ? [key, f32(tensor.shape, new Array(tensor.data.length / 4).fill(value(key)))] : [key, tensor],
        ),
      )
    const primitives = (name: string, value: (key: string) => number) => [
      ...compileChanged(name, { tensors: filled(value) }).adapter.sites.values(),
    ]
    for (const name of [
      'llama/fourierft',
      'llama/waveft',
      'llama/hira',
      'llama/glora',
      'llama/c3a',
      'llama/shira_head',
      'llama/beft',
    ]) {
      for (const [primitive] of primitives(name, () => 0))
        assert.ok(
          arraysOf(primitive).every((array) => array instanceof Int32Array || array.every((value) => value === 0)),
          name,
        )
    }
    for (const [primitive] of primitives('llama/road_2', (key) => (key.endsWith('road_alpha') ? 1 : 0))) {
      assert.ok(primitive?.kind === 'pair-rotate')
      assert.ok(primitive.cos.every((value) => value === 1) && primitive.sin.every((value) => value === 0))
    }
    for (const [rotate, factor] of primitives('llama/boft', (key) => (key.endsWith('boft_s') ? 1 : 0))) {
      assert.ok(rotate?.kind === 'rotate' && factor?.kind === 'vector')
      const { blockSize: size, blocks } = rotate
      assert.ok(blocks.every((value, i) => Math.abs(value) === ((i % (size * size)) % (size + 1) === 0 ? 1 : 0)))
      assert.ok(factor.values.every((value) => value === 1))
    }
  })

  it('the compact form of a product of reflections is that product', () => {
    const [rank, width] = [5, 12]
    const random = createRandom(2)
    const vectors = new Float64Array(randomArray(random, rank * width, 1))
    let explicit: number[] = Array.from({ length: width * width }, (_, i) => (i % (width + 1) === 0 ? 1 : 0))
    for (let k = 0; k < rank; k++) {
      const v = vectors.subarray(k * width, (k + 1) * width)
      const norm = Math.hypot(...v)
      for (let i = 0; i < width; i++) v[i]! /= norm
      const image = Array.from({ length: width }, (_, i) => v.reduce((sum, x, j) => sum + explicit[i * width + j]! * x, 0))
      explicit = explicit.map((value, i) => value - 2 * image[Math.floor(i / width)]! * v[i % width]!)
    }
    const factor = compactFactor(vectors, rank)
    for (let i = 0; i < width * width; i++) {
      let value = i % (width + 1) === 0 ? 1 : 0
      for (let k = 0; k < rank; k++) {
        for (let l = 0; l < rank; l++)
          value -= vectors[k * width + Math.floor(i / width)]! * factor[k * rank + l]! * vectors[l * width + (i % width)]!
      }
      assert.ok(Math.abs(value - explicit[i]!) < 1e-14)
    }
  })

  it('an untrained HRA, whose reflections cancel in pairs, is the base model; a zero column reflects nothing', () => {
    const tensors = (all: Tensors) =>
      Object.fromEntries(
        Object.entries(all).map(([key, tensor]) => {
          const values = floats(tensor)
          return [
            key,
            f32(
              tensor.shape,
              Array.from(values, (_, i) => (i % 4 < 2 ? values[i - (i % 4)]! : 0)),
            ),
          ]
        }),
      )
    const { adapter, warnings } = compileChanged('llama/hra', { tensors })
    const { a, b, rank } = lowRank(adapter.sites, 'layers.0.q')
    for (let i = 0; i < 64 * 64; i++) {
      let delta = 0
      for (let k = 0; k < rank; k++) delta += b[Math.floor(i / 64) * rank + k]! * a[k * 64 + (i % 64)]!
      assert.ok(Math.abs(delta) < 1e-6)
    }
    assert.match(warnings[0] ?? '', /zero/)
  })

  it('the orthonormal factor has the signs of LAPACK', () => {
    // R = Qᵀ P has a diagonal of the sign opposite to the element that each reflection started from.
    const q = orthonormalFactor(Float32Array.from([3, 1, 4, 1]), 2, 2)
    const expected = [-0.6, -0.8, -0.8, 0.6]
    for (let i = 0; i < 4; i++) assert.ok(Math.abs(q[i]! - expected[i]!) < 1e-12, `${[...q]}`)
  })
})

describe('the random stream of PyTorch', () => {
  it('draws what torch draws', () => {
    assert.equal(new MersenneTwister(0).nextUint32(), 2357136044)
    assert.equal(new MersenneTwister(2 ** 32).nextUint32(), 2357136044, 'the low 32 bits of a seed count')
    assertNear(new MersenneTwister(0).uniform(2, 0, 1), [0.49625659, 0.7682218])
  })

  it('regenerates the projections of VERA', () => {
    const random = new MersenneTwister(0)
    assertNear(
      drawProjection(random, 2, 4),
      [-0.00916945, 0.65700656, -1.0080204, -0.90133756, -0.47171584, 0.32842436, -0.02426609, 0.97108734],
    )
    assertNear(drawProjection(random, 3, 2), [-0.15370919, 0.45832238, -0.52344841, -0.34046122, -1.65471208, -1.14710629])
  })
})

function lowRank(sites: ReadonlyMap<Site, readonly Primitive[]>, site: Site): LowRank {
  const [primitive] = sites.get(site) ?? []
  assert.ok(primitive?.kind === 'low-rank', `low rank at ${site}`)
  return primitive
}

/** Zero columns after the two of [64, 2], or zero rows after the two of [2, 64]. */
function padded(values: Float32Array, columns: boolean, rank: number): number[] {
  if (!columns) return [...values, ...new Array<number>((rank - 2) * 64).fill(0)]
  return Array.from({ length: 64 * rank }, (_, i) => (i % rank < 2 ? values[Math.floor(i / rank) * 2 + (i % rank)]! : 0))
}

function floats({ data }: TensorData): Float32Array {
  return new Float32Array(Uint8Array.from(data).buffer)
}

function assertNear(found: ArrayLike<number>, expected: readonly number[], tolerance = 5e-8): void {
  assert.equal(found.length, expected.length)
  for (const [i, value] of expected.entries())
    assert.ok(Math.abs(found[i]! - value) < tolerance, `${i}: ${found[i]} beside ${value}`)
}
