// An AdapterHub directory to primitives: the frame around every method and composition.

import type { DecoderSpec } from '../../../model/decoder-spec.ts'
import type { ModelSource } from '../../../model/model-source.ts'
import type { VirtualTokens } from '../../primitive.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import { ConfigFields, show } from '../peft/config-fields.ts'
import { areEqual, findBySite, readWeight } from '../peft/module-weights.ts'
import type { Refuse } from '../peft/refuse.ts'
import { TensorSet } from '../peft/tensor-set.ts'
import { SiteBuilder } from '../site-builder.ts'
import type { HubMember, HubSetup } from './adapterhub-directory.ts'
import { compileBottlenecks } from './bottleneck.ts'
import { composeHooks } from './composition.ts'
import { type HubContext, openHubTensors } from './hub-context.ts'
import { compileLowRank } from './low-rank.ts'
import { compilePrefix } from './prefix.ts'
import { compileReft } from './reft.ts'

/** One method of the library. It reads its keys of the config, then calls `config.finish()`; only prefixes answer anything. */
export const HUB_METHODS: Readonly<Record<string, (context: HubContext) => VirtualTokens | null>> = {
  bottleneck: (context) => nothing(compileBottlenecks(context)),
  lora: (context) => nothing(compileLowRank(context)),
  prefix_tuning: compilePrefix,
  reft: (context) => nothing(compileReft(context)),
}

function nothing(_: undefined): null {
  return null
}

/** Throws ADAPTER_REFUSED naming the config key or tensor at fault, or SAFETENSORS_INVALID. */
export function compileAdapterHub(setup: HubSetup, model: ModelSource, refuse: Refuse): CompiledSites {
  checkModel(model, refuse)
  const warnings: string[] = []
  if (setup.type === 'single') return compileMember(setup, model, refuse, warnings)
  return {
    kind: `adapterhub/${setup.type}`,
    sites: composeHooks(setup, (member) => compileMember(member, model, refuse, warnings), model.spec, refuse),
    invocationTokenIds: null,
    virtualTokens: null,
    warnings,
  }
}

function compileMember(member: HubMember, model: ModelSource, refuse: Refuse, warnings: string[]): CompiledSites {
  checkWidth(member, model.spec, refuse)
  const tensors = openHubTensors(member.weightsPath, member.name, refuse)
  const sites = new SiteBuilder()
  const compiled = configsOf(member, refuse).map(({ method, config }) => {
    const fields = new ConfigFields(config, refuse)
    fields.ignore(['architecture'])
    const compile = HUB_METHODS[method]
    if (compile === undefined) {
      throw refuse(
        'config.architecture',
        `${show(method)} is not served; known are ${Object.keys(HUB_METHODS).join(', ')}, union`,
      )
    }
    return compile({ model, config: fields, tensors, sites, refuse, warnings, version: member.version })
  })
  tensors.finish()
  compileHead(member, model, sites, refuse)
  const prefixes = compiled.filter((virtualTokens) => virtualTokens !== null)
  if (prefixes.length > 1) throw refuse('config.configs', 'holds two prefixes; one is served')
  return {
    kind: `adapterhub/${methodOf(member.config)}`,
    sites: sites.build(),
    invocationTokenIds: null,
    virtualTokens: prefixes[0] ?? null,
    warnings,
  }
}

/** The parts of a union, or the one config. */
function configsOf(
  { config }: HubMember,
  refuse: Refuse,
): readonly { method: string; config: Readonly<Record<string, unknown>> }[] {
  if (config['architecture'] !== 'union') return [{ method: methodOf(config), config }]
  const { configs, architecture: _, leave_out: __, ...rest } = config
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw refuse(`config.${unknown}`, 'is an option of a union this server does not know')
  if (!Array.isArray(configs)) throw refuse('config.configs', 'is not a list')
  return configs.map((each: unknown) => {
    if (typeof each !== 'object' || each === null) throw refuse('config.configs', 'holds something that is not a config')
    return { method: methodOf(each as Record<string, unknown>), config: each as Record<string, unknown> }
  })
}

/** Bottlenecks were there first and have no name. */
function methodOf(config: Readonly<Record<string, unknown>>): string {
  return typeof config['architecture'] === 'string' ? config['architecture'] : 'bottleneck'
}

/** The library saves the causal head along, trained or not. */
function compileHead({ headPath }: HubMember, model: ModelSource, sites: SiteBuilder, refuse: Refuse): void {
  const head = findBySite(model, 'lmHead')
  if (headPath === null || head === null) return
  const tensors = new TensorSet(headPath, refuse, { keyOf: (name) => name, nameOf: (key) => key })
  const key = 'lm_head.weight'
  // A head of another kind (classification, say) belongs to another model class.
  if (!tensors.has(key)) throw refuse('head_config.json', 'the head saved with the adapter is no language model head')
  const weight = tensors.require(key, [head.outFeatures, head.inFeatures]).values
  tensors.finish()
  if (areEqual(weight, readWeight(model, head))) return
  if (model.spec.tiedHead) throw refuse(key, 'differs from the embedding this model ties it to')
  sites.replaceWeight(head, weight)
}

function checkModel(model: ModelSource, refuse: Refuse): void {
  const hasLlamaNames =
    model.modules.has('model.layers.0.self_attn.q_proj') && model.modules.has('model.layers.0.mlp.down_proj')
  const { norms, modelType } = model.spec
  if (hasLlamaNames && !norms.has('postAttn')) return
  throw refuse('model_type', `adapters of this library are served on Llama, Mistral and Qwen; this model is ${modelType}`)
}

function checkWidth({ hiddenSize }: HubMember, spec: DecoderSpec, refuse: Refuse): void {
  if (hiddenSize === null || hiddenSize === spec.hiddenSize) return
  throw refuse('hidden_size', `${hiddenSize}, where this model has ${spec.hiddenSize}; is it an adapter of another base model?`)
}
