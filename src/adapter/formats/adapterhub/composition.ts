// Compositions of bottleneck adapters (arXiv:2311.11077): what several adapters do at one hook, as primitives of that hook.
//
//   Stack     f1 = f + A1(f + res),  f2 = f1 + A2(f1 + res)
//   Average   Σ w_i (f + A_i) / n                              the library divides by n although its weights sum to 1
//   Fuse      f + Σ_i p_i V A_i,  p = softmax_i((Q (f + res) + bq) · (K A_i + bk))

import type { DecoderSpec } from '../../../model/decoder-spec.ts'
import type { Bottleneck, Primitive, Routed, Site } from '../../primitive.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import type { Refuse } from '../peft/refuse.ts'
import type { TensorSet } from '../peft/tensor-set.ts'
import type { HubBlock, HubFusion, HubMember, HubSetup } from './adapterhub-directory.ts'
import { openHubTensors } from './hub-context.ts'

type CompileMember = (member: HubMember) => CompiledSites
type Hooks = ReadonlyMap<Site, readonly (Bottleneck | Routed)[]>

/** Keys of a fusion's config that say something about training, or about a shape the tensors show. */
const FUSION_TRAINING_KEYS: ReadonlySet<string> = new Set(['dropout_prob', 'regularization', 'value_initialized'])

/** What a fusion computes with every other key at this value is what is written above. */
const FUSION_REQUIRED: Readonly<Record<string, boolean>> = {
  key: true,
  query: true,
  query_before_ln: false,
  residual_before: false,
  temperature: false,
  value: true,
  value_before_softmax: true,
}

/** Primitives by hook. Throws ADAPTER_REFUSED where a member acts anywhere else than at hooks. */
export function composeHooks(block: HubBlock, compile: CompileMember, spec: DecoderSpec, refuse: Refuse): Hooks {
  const children = block.children.map((child) => hooksOf(child, compile, spec, refuse))
  if (block.type === 'stack') return stack(children)
  const sites = [...(children[0]?.keys() ?? [])]
  const isSame = children.every((child) => child.size === sites.length && sites.every((site) => child.has(site)))
  if (!isSame) throw refuse('adapter_setup.json', `the members of ${block.type} do not adapt the same layers`)
  const fusion = block.fusion === null ? null : openFusion(block.fusion, refuse)
  const hooks = new Map<Site, readonly (Bottleneck | Routed)[]>()
  for (const site of sites) {
    const experts = children.map((child) => onlyBottleneck(child.get(site) ?? [], block, refuse))
    const input = experts[0]?.input
    if (experts.some((expert) => expert.input !== input)) {
      throw refuse('adapter_setup.json', `the members of ${block.type} read different inputs`)
    }
    hooks.set(site, [fusion === null ? average(experts, block.weights) : fuse(experts, fusion, site, spec.hiddenSize)])
  }
  fusion?.finish()
  return hooks
}

function hooksOf(setup: HubSetup, compile: CompileMember, spec: DecoderSpec, refuse: Refuse): Hooks {
  if (setup.type !== 'single') return composeHooks(setup, compile, spec, refuse)
  const { sites, virtualTokens } = compile(setup)
  const hooks = new Map<Site, Bottleneck[]>()
  for (const [site, primitives] of sites) {
    hooks.set(
      site,
      primitives.map((primitive) => checkedBottleneck(setup, primitive, refuse)),
    )
  }
  if (virtualTokens !== null) throw refuse('adapter_setup.json', `${setup.name} is a prefix; bottlenecks can be composed`)
  return hooks
}

function checkedBottleneck({ name }: HubMember, primitive: Primitive, refuse: Refuse): Bottleneck {
  if (primitive.kind !== 'bottleneck')
    throw refuse('adapter_setup.json', `${name} is no bottleneck; only those can be composed`)
  // The library lets the first of a stack of parallel adapters go unheard, and a gate has no place in a mixture.
  if (primitive.input === 'residual') throw refuse('adapter_setup.json', `${name} is parallel, which is not composed`)
  if (primitive.gate !== null) throw refuse('adapter_setup.json', `${name} has a gate, which is not composed`)
  return primitive
}

function stack(children: readonly Hooks[]): Hooks {
  const hooks = new Map<Site, (Bottleneck | Routed)[]>()
  for (const child of children) {
    for (const [site, primitives] of child) hooks.set(site, [...(hooks.get(site) ?? []), ...primitives])
  }
  return hooks
}

function onlyBottleneck(primitives: readonly (Bottleneck | Routed)[], { type }: HubBlock, refuse: Refuse): Bottleneck {
  const [first, second] = primitives
  if (first?.kind === 'bottleneck' && second === undefined) return first
  throw refuse('adapter_setup.json', `a block inside ${type} is not served; name adapters`)
}

function average(experts: readonly Bottleneck[], weights: readonly number[]): Routed {
  const shares = Float32Array.from(weights, (weight) => weight / weights.length)
  const sublayerWeight = weights.reduce((sum, weight) => sum + weight, 0) / weights.length
  return { kind: 'routed', experts, gate: { kind: 'constant', weights: shares }, sublayerWeight }
}

/** The library mixes what comes out of the up projection, before any norm behind it. */
function fuse(experts: readonly Bottleneck[], tensors: TensorSet, site: Site, width: number): Routed {
  const [, layer, hook] = site.split('.')
  const path = `model.layers.${layer}.${hook === 'attnOut' ? 'attention_adapters' : 'output_adapters'}.adapter_fusion_layer`
  const matrix = (name: string) => tensors.require(`${path}.${name}.weight`, [width, width]).values
  const bias = (name: string) => tensors.require(`${path}.${name}.bias`, [width]).values
  return {
    kind: 'routed',
    experts: experts.map((expert) => ({ ...expert, normAfter: null, normsSublayerSum: false })),
    gate: {
      kind: 'attention',
      query: matrix('query'),
      queryBias: bias('query'),
      key: matrix('key'),
      keyBias: bias('key'),
      value: matrix('value'),
    },
    sublayerWeight: 1,
  }
}

function openFusion({ name, config, weightsPath }: HubFusion, refuse: Refuse): TensorSet {
  for (const [key, value] of Object.entries(config)) {
    if (FUSION_TRAINING_KEYS.has(key)) continue
    if (FUSION_REQUIRED[key] !== value) throw refuse(`${name}: ${key}`, `${String(value)} is not served`)
  }
  return openHubTensors(weightsPath, name, refuse)
}
