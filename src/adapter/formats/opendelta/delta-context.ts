// What the compilers of OpenDelta's types share, and which modules a config names.

import type { ModelSource } from '../../../model/model-source.ts'
import type { ModuleInfo } from '../../../model/module-map.ts'
import type { BottleneckActivation, Hook, Site } from '../../primitive.ts'
import { activationNamed } from '../activation-names.ts'
import type { ConfigFields } from '../peft/config-fields.ts'
import { show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import type { TensorSet } from '../peft/tensor-set.ts'
import type { SiteBuilder } from '../site-builder.ts'

/** The compiler of a type fills `sites`; what it leaves unread is refused by the caller. */
export interface DeltaContext {
  readonly model: ModelSource
  readonly config: ConfigFields
  readonly tensors: TensorSet
  readonly sites: SiteBuilder
  readonly refuse: Refuse
}

/** A module that something hangs on: a linear, or a whole sublayer. */
export type DeltaTarget =
  | { readonly path: string; readonly module: ModuleInfo }
  | { readonly path: string; readonly module: null; readonly hook: Site }

const SUBLAYERS: readonly { readonly name: string; readonly hook: Hook }[] = [
  { name: 'self_attn', hook: 'attnOut' },
  { name: 'attn', hook: 'attnOut' },
  { name: 'mlp', hook: 'mlpOut' },
]

/**
 * Modules that the config names, in the order of the model: by dotted suffix, less those that start with an excluded name. Of a config
 * without names, and one in the library's own "common structure", the file's tensors tell: those with a `deltaName` below them.
 */
export function findTargets({ model, config, tensors, refuse }: DeltaContext, deltaName: string): readonly DeltaTarget[] {
  const names = config.stringList('modified_modules')
  const excluded = config.stringList('exclude_modules') ?? []
  const all = allTargets(model)
  const byFile = names === null || config.flag('common_structure') || names.some((name) => name.includes('@'))
  if (!byFile && names.some((name) => name.startsWith('[r]'))) {
    throw refuse('modified_modules', 'holds a pattern; name the modules by the ends of their paths')
  }
  const found = byFile
    ? all.filter(({ path }) => tensors.hasUnder(`${path}.${deltaName}`))
    : all.filter(
        ({ path }) =>
          names.some((name) => path === name || path.endsWith(`.${name}`)) && !excluded.some((name) => path.startsWith(name)),
      )
  if (found.length === 0) throw refuse('modified_modules', `${show(names)} matches no module of this model`)
  for (const { path, module } of found) {
    if (module !== null && module.refusal !== null) throw refuse('modified_modules', `${path}: ${module.refusal}`)
  }
  return found
}

/** In the order of torch's `named_modules`: a sublayer before what it holds. */
function allTargets({ modules }: ModelSource): readonly DeltaTarget[] {
  const targets: DeltaTarget[] = []
  const seen = new Set<string>()
  for (const module of modules.values()) {
    const parent = module.path.slice(0, module.path.lastIndexOf('.'))
    const sublayer = SUBLAYERS.find(({ name }) => parent.endsWith(`.${name}`))
    if (sublayer !== undefined && module.layer !== null && !seen.has(parent)) {
      seen.add(parent)
      targets.push({ path: parent, module: null, hook: `layers.${module.layer}.${sublayer.hook}` })
    }
    targets.push({ path: module.path, module })
  }
  return targets
}

/** Lower case, with the names that AdapterHub's table adds. */
export function readActivation({ config, refuse }: DeltaContext): BottleneckActivation {
  const value = config.value('non_linearity') ?? 'gelu_new'
  const name = typeof value === 'string' ? value.toLowerCase() : value
  return activationNamed(name, 'non_linearity', refuse, { gelu_orig: 'gelu', leakyrelu: 'leaky-relu' })
}
