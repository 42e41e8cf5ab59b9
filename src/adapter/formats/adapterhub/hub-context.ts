import type { ModelSource } from '../../../model/model-source.ts'
import type { ConfigFields } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'
import { type TensorNaming, TensorSet } from '../peft/tensor-set.ts'
import type { SiteBuilder } from '../site-builder.ts'

/** What the compiler of one method works with. It fills `sites`; what it leaves unread is refused by the caller. */
export interface HubContext {
  readonly model: ModelSource
  readonly config: ConfigFields
  readonly tensors: TensorSet
  readonly sites: SiteBuilder
  readonly refuse: Refuse
  readonly warnings: string[]
  /** Null before versions were written. */
  readonly version: readonly number[] | null
}

/** Containers of adapters inside the model; the adapter's name follows each of them in a key. */
const CONTAINERS =
  '(adapters|adapter_fusion_layer|loras|refts|prefix_tunings|prefix_gates|invertible_adapters|shared_parameters)'

/** Keys without the adapter's name: `model.layers.0.output_adapters.adapters.adapter_up.bias`. */
export function openHubTensors(path: string, adapterName: string, refuse: Refuse): TensorSet {
  const named = new RegExp(`(^|\\.)${CONTAINERS}\\.(.+)$`)
  const naming: TensorNaming = {
    keyOf(name) {
      const match = named.exec(name)
      const rest = match?.[3]
      if (match === null || rest === undefined || !rest.startsWith(`${adapterName}.`)) {
        throw refuse(name, `is no tensor of the adapter ${adapterName}, which the config names`)
      }
      return name.slice(0, name.length - rest.length) + rest.slice(adapterName.length + 1)
    },
    nameOf: (key) => key.replace(named, `$1$2.${adapterName}.$3`),
  }
  return new TensorSet(path, refuse, naming)
}

/** Layers the method is in: all but `leave_out`. */
export function adaptedLayers({ model, config, refuse }: HubContext): readonly number[] {
  const leaveOut = config.value('leave_out') ?? []
  const { numLayers } = model.spec
  if (!Array.isArray(leaveOut) || !leaveOut.every((layer) => Number.isInteger(layer))) {
    throw refuse('leave_out', 'is not a list of layers')
  }
  return Array.from({ length: numLayers }, (_, layer) => layer).filter((layer) => !leaveOut.includes(layer))
}
