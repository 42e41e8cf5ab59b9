// What a reader of a board can choose. Own families have no model_name: the choice of a model narrows the replicas instead.

import { variable } from './panel.mjs'

// Shorter in a query than the names of all.
const ANY = '.+'

export const modelVariable = variable('model_name', 'Model', 'label_values(vllm:num_requests_running, model_name)', ANY)

export const instanceVariable = variable(
  'instance',
  'Replica',
  'label_values(vllm:num_requests_running{model_name=~"$model_name"}, instance)',
)

export const adapterVariable = variable(
  'adapter',
  'Adapter',
  'label_values(lorikeet_adapter_requests_total{instance=~"$instance"}, adapter)',
  ANY,
)
