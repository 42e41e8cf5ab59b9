// An HF PEFT directory to primitives: the frame around every `peft_type`.

import type { ModelSource } from '../../../model/model-source.ts'
import type { CompiledSites } from '../compiled-sites.ts'
import type { PeftDirectory } from '../detect.ts'
import { SiteBuilder } from '../site-builder.ts'
import { ConfigFields, show } from './config-fields.ts'
import { PEFT_TYPES, REFUSED_PEFT_TYPES } from './peft-types.ts'
import { refuserOf } from './refuse.ts'
import { TensorSet } from './tensor-set.ts'

/** Throws ADAPTER_REFUSED naming the config key or tensor at fault, or SAFETENSORS_INVALID. */
export function compilePeft(directory: PeftDirectory, model: ModelSource, adapterName: string): CompiledSites {
  const refuse = refuserOf(adapterName)
  const kind = String(directory.config['peft_type']).toUpperCase()
  const compile = Object.hasOwn(PEFT_TYPES, kind) ? PEFT_TYPES[kind] : undefined
  if (compile === undefined) {
    const why = Object.hasOwn(REFUSED_PEFT_TYPES, kind) ? `: ${REFUSED_PEFT_TYPES[kind]}` : ''
    const served = Object.keys(PEFT_TYPES).join(', ')
    throw refuse('peft_type', `${show(kind)} is not supported${why}; this server loads ${served}`)
  }
  const config = new ConfigFields(directory.config, refuse)
  const taskType = config.value('task_type')
  if (taskType !== null && taskType !== 'CAUSAL_LM') {
    throw refuse('task_type', `${show(taskType)} needs another head than this model has; only CAUSAL_LM is served`)
  }
  const tensors = new TensorSet(directory.weightsPath, refuse)
  const sites = new SiteBuilder()
  const warnings: string[] = []
  const { invocationTokenIds, virtualTokens } = compile({ model, config, tensors, sites, refuse, warnings })
  config.finish()
  tensors.finish()
  return { kind, sites: sites.build(), invocationTokenIds, virtualTokens, warnings }
}
