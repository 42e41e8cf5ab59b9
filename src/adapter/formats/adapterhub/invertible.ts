// The invertible adapter behind the embedding (MAD-X, arXiv:2005.00052). A causal model with its own head applies the forward half only.

import type { HalfMlp } from '../../primitive.ts'
import { readActivation } from './activation.ts'
import type { HubContext } from './hub-context.ts'

const ROOT = 'model.invertible_adapters'

export function compileInvertible(context: HubContext): void {
  const { config, sites, model, refuse } = context
  // Of the shapes; the tensors say them.
  config.ignore(['inv_adapter_reduction_factor'])
  const kind = config.value('inv_adapter')
  if (kind === null) return
  if (kind !== 'nice') throw refuse('inv_adapter', `${String(kind)} is not served; nice is`)
  if (model.spec.hiddenSize % 2 !== 0) throw refuse('inv_adapter', 'this model has an odd hidden size, which has no halves')
  sites.addCoupling({ f: readHalf(context, `${ROOT}.F`), g: readHalf(context, `${ROOT}.G`) })
}

function readHalf(context: HubContext, path: string): HalfMlp {
  const { tensors, model, refuse } = context
  const half = model.spec.hiddenSize / 2
  const size = tensors.leadingSize(`${path}.0.weight`)
  if (size === null) throw refuse(`${path}.0.weight`, 'missing from the file; inv_adapter asks for it')
  return {
    size,
    down: tensors.require(`${path}.0.weight`, [size, half]).values,
    downBias: tensors.require(`${path}.0.bias`, [size]).values,
    up: tensors.require(`${path}.2.weight`, [half, size]).values,
    upBias: tensors.require(`${path}.2.bias`, [half]).values,
    activation: readActivation(context),
  }
}
