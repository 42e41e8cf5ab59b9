import assert from 'node:assert/strict'
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { compileAdapter, compileMixture } from '../../src/adapter/compile.ts'
import { baseParameters } from '../../src/adapter/mixture/base-parameters.ts'
import { sumAdapters } from '../../src/adapter/mixture/sum-adapters.ts'
import type { CompiledAdapter, Primitive, Site } from '../../src/adapter/primitive.ts'
import { NO_PRIMITIVES, sortSite } from '../../src/adapter/site-primitives.ts'
import { applyLinear } from '../../src/backend/reference/linear.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { ModelWeights } from '../../src/backend/reference/site-weights.ts'
import { adapterId } from '../../src/core/ids.ts'
import { LorikeetError } from '../../src/errors.ts'
import { goldenModel } from '../support/adapter-dir.ts'
import { goldenAdapterDir } from '../support/adapter-golden-suite.ts'
import { maxAbsDiff } from '../support/golden.ts'
import { hubGoldenDir } from '../support/hub-golden-suite.ts'
import { PlanDriver } from '../support/plan-driver.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'
import { everyKind } from '../support/random-primitives.ts'
import { tempDir } from '../support/safetensors-file.ts'

const model = goldenModel('llama')
const weights = ModelWeights.load(model)
const PROMPT = [5, 300, 17, 42, 9, 128, 77, 201]
const TOLERANCE = 2e-4

const golden = (name: string): CompiledAdapter =>
  compileAdapter(goldenAdapterDir('llama', name), model, adapterId(1), name).adapter

function sum(...members: readonly (readonly [CompiledAdapter, number])[]) {
  return sumAdapters(
    'sum',
    members.map(([adapter, weight]) => ({ adapter, weight })),
    baseParameters(model),
  )
}

function refusal(work: () => unknown): LorikeetError {
  try {
    work()
  } catch (thrown) {
    if (thrown instanceof LorikeetError) return thrown
    throw thrown
  }
  assert.fail('it is refused')
}

/** What the site gives for one input. */
function outputOf(site: string, primitives: readonly Primitive[] | undefined, x: Float32Array): Float32Array {
  const sorted = primitives === undefined ? NO_PRIMITIVES : sortSite(primitives)
  return applyLinear(weights.get(site), sorted, [x])[0]!
}

async function logitsOf(adapter: CompiledAdapter | null): Promise<Float32Array> {
  const backend = createReferenceBackend({ model, blockSize: 4, kvCache: { numBlocks: 16 }, adapterBytes: 1 << 30 })
  const driver = new PlanDriver(backend)
  const options = adapter === null ? {} : { adapterSlot: backend.loadAdapter(adapter)! }
  const rows = await driver.step([{ sequence: driver.add(PROMPT, options) }])
  await backend.dispose()
  return rows[0]![0]!
}

describe('a sum of adapters', () => {
  const linears = everyKind(model).filter(({ name }) =>
    /^(kron|rotate|circulant|sparse|dense|site-beside|gated|routed-low)/.test(name),
  )
  const goldens = ['lora_all', 'lora_dora', 'ia3', 'vera', 'loha', 'lokr', 'adalora'].map(golden)
  const hub = ['dora', 'ia3'].map((name) => compileAdapter(hubGoldenDir(name), model, adapterId(1), `hub ${name}`).adapter)

  // Every adapter here computes y_i = y + (what it adds); the sum is y + Σ w_i (y_i - y) whatever the kinds.
  it('adds at every linear what each member adds, times its weight', () => {
    const random = createRandom(9)
    const adapters = [...linears, ...goldens, ...hub]
    let numPairs = 0
    for (const [i, a] of adapters.entries()) {
      const b = adapters[(i + 3) % adapters.length]!
      let summed: ReturnType<typeof sum>
      try {
        summed = sum([a, 0.7], [b, -1.5])
      } catch (thrown) {
        // Scales of inputs beside scales of outputs are no sum of either; nothing else here is refused.
        assert.match(String(thrown), /a scale of outputs beside/)
        continue
      }
      numPairs++
      for (const [site, primitives] of summed.sites) {
        const { numIn } = weights.get(site)
        const x = randomArray(random, numIn, 1)
        const base = outputOf(site, undefined, x)
        const expected = base.map((y, o) => {
          const add = ([adapter, weight]: readonly [CompiledAdapter, number]) =>
            weight * (outputOf(site, adapter.sites.get(site), x)[o]! - y)
          return y + add([a, 0.7]) + add([b, -1.5])
        })
        const difference = maxAbsDiff(outputOf(site, primitives, x), expected)
        assert.ok(difference <= TOLERANCE, `${a.name} and ${b.name} at ${site} differ by ${difference}`)
      }
    }
    assert.ok(numPairs >= adapters.length - 4, `${numPairs} pairs were summed`)
  })

  it('with one member of weight 1 is that member, for norms, embeddings, hooks and virtual tokens too', async () => {
    for (const name of ['ln_tuning', 'lora_trainable_tokens', 'lora_all', 'prompt_tuning', 'lora_modules_to_save']) {
      const member = golden(name)
      const whole = { ...member, ...sum([member, 1]) }
      assert.ok(maxAbsDiff(await logitsOf(whole), await logitsOf(member)) <= TOLERANCE, name)
    }
    const bottleneck = compileAdapter(hubGoldenDir('double_seq_bn'), model, adapterId(1), 'bn').adapter
    assert.ok(maxAbsDiff(await logitsOf({ ...bottleneck, ...sum([bottleneck, 1]) }), await logitsOf(bottleneck)) <= TOLERANCE)
  })

  it('with weights of 0 is the base model', async () => {
    const summed = sum([golden('lora_all'), 0], [golden('ln_tuning'), 0], [golden('lora_trainable_tokens'), 0])
    assert.ok(maxAbsDiff(await logitsOf({ ...golden('lora_all'), ...summed }), await logitsOf(null)) <= TOLERANCE)
  })

  it('keeps low-rank updates side by side', () => {
    const lora = golden('lora_all')
    const primitives = sum([lora, 2], [golden('lora_alllinear_rank1'), 1]).sites.get('layers.0.q' as Site)!
    assert.deepEqual(
      primitives.map(({ kind }) => kind),
      ['low-rank', 'low-rank'],
    )
  })

  it('is refused by the member that cannot be summed', () => {
    const kinds = new Map(everyKind(model).map((adapter) => [adapter.name, adapter]))
    for (const name of ['pair-rotate', 'stream-edit', 'site-input', 'embedding']) {
      const error = refusal(() => sum([golden('lora_all'), 1], [kinds.get(name)!, 1]))
      assert.equal(error.code, 'ADAPTER_REFUSED')
      assert.equal(error.field, name)
    }
    const [prompt, prefix] = [golden('prompt_tuning'), golden('prefix_tuning')]
    assert.equal(refusal(() => sum([prompt, 1], [prefix, 1])).field, 'prefix_tuning')
    assert.equal(refusal(() => sum([prompt, 0.5])).field, 'prompt_tuning')
    assert.equal(refusal(() => sum([golden('lora_all'), 1], [golden('alora'), 1])).field, 'alora')
  })
})

describe('a mixture on disk', () => {
  /** A folder with two members, and a mixture of them. */
  function write(mixture: object): { readonly dir: string; readonly root: string } {
    const root = tempDir()
    for (const name of ['lora_all', 'lora_alllinear_rank1'])
      cpSync(goldenAdapterDir('llama', name), join(root, name), { recursive: true })
    const dir = join(root, 'mix')
    mkdirSync(dir)
    writeFileSync(join(dir, 'lorikeet_mixture.json'), JSON.stringify({ version: 1, ...mixture }))
    return { dir, root }
  }
  const compile = (dir: string) => compileAdapter(dir, model, adapterId(1), 'mix').adapter
  const member = (path: string, weight: number) => ({ path, weight })

  it('is the sum of its members', () => {
    const { dir } = write({ kind: 'soup', members: [member('../lora_all', 0.25), member('../lora_alllinear_rank1', 0.75)] })
    const mixture = compile(dir)
    assert.equal(mixture.kind, 'soup')
    const expected = sum([golden('lora_all'), 0.25], [golden('lora_alllinear_rank1'), 0.75])
    assert.deepEqual(mixture.sites, expected.sites)
  })

  it('averages the tensors of members built alike, and refuses others', () => {
    const { dir } = write({ combine: 'average-weights', members: [member('../lora_all', 0.25), member('../lora_all', 0.5)] })
    const [own] = compile(dir).sites.get('layers.0.q' as Site)!
    const [once] = golden('lora_all').sites.get('layers.0.q' as Site)!
    assert.ok(own?.kind === 'low-rank' && once?.kind === 'low-rank')
    assert.ok(
      maxAbsDiff(
        own.a,
        once.a.map((value) => 0.75 * value),
      ) < 1e-7,
    )
    assert.ok(
      maxAbsDiff(
        own.b,
        once.b.map((value) => 0.75 * value),
      ) < 1e-7,
    )
    const other = write({
      combine: 'average-weights',
      members: [member('../lora_all', 1), member('../lora_alllinear_rank1', 1)],
    })
    assert.equal(refusal(() => compile(other.dir)).field, 'lora_alllinear_rank1')
  })

  it('is refused by the key that is wrong, and never leads out of its folder', () => {
    const field = (mixture: object) => refusal(() => compile(write(mixture).dir)).field
    const good = [member('../lora_all', 1)]
    assert.equal(field({ version: 2, members: good }), 'version')
    assert.equal(field({ members: [] }), 'members')
    assert.equal(field({ members: good, combine: 'ties' }), 'combine')
    assert.equal(field({ members: good, rule: 1 }), 'rule')
    assert.equal(field({ members: [{ path: '../lora_all', weight: 'much' }] }), 'members[0].weight')
    assert.equal(field({ members: [{ path: '../lora_all', weight: 1, scale: 2 }] }), 'members[0].scale')
    assert.equal(field({ members: [member('../missing', 1)] }), 'members[0].path')
    assert.equal(field({ members: [member('../mix', 1)] }), 'members[0].path')
    assert.equal(field({ members: [member('/etc', 1)] }), 'members[0].path')
    const { dir, root } = write({ members: [member('../elsewhere', 1)] })
    symlinkSync(goldenAdapterDir('llama', 'lora_all'), join(root, 'elsewhere'))
    assert.equal(refusal(() => compile(dir)).field, 'members[0].path')
  })

  it('is refused when a member is no longer what was loaded', () => {
    const { root } = write({ members: [] })
    const path = join(root, 'lora_all')
    const { digest } = compile(path)
    const load = (expected: string) =>
      compileMixture(
        { kind: 'mixture', combine: 'sum', members: [{ path, weight: 1, digest: expected }] },
        model,
        adapterId(1),
        'm',
      )
    assert.equal(load(digest).adapter.kind, 'mixture')
    assert.match(refusal(() => load('another')).message, /changed since it was loaded/)
  })
})
