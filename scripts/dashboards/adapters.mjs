// Adapters: who uses which, how each is served, what loading them costs.

import { bars, dashboard, lines, stat, table } from './panel.mjs'
import { mean, ofAdapter, own, quantile, rate, top } from './queries.mjs'
import { adapterVariable, instanceVariable, modelVariable } from './variables.mjs'

const LEGEND = '{{adapter}}'
const byAdapter = (expression) => top(`sum by (adapter) (${expression})`)

const stateStat = (state, title, description, scale) =>
  stat({
    title,
    description,
    unit: 'short',
    ...(scale && { scale }),
    queries: [[`sum(${own('lorikeet_adapter_state', `state="${state}"`)})`]],
  })

const fleet = [
  stateStat('registered', 'Registered', 'Known by name, in no memory now; read again from their source at the next use.'),
  stateStat('host', 'In host memory', 'Compiled and ready to be copied to the device.'),
  stateStat('device', 'On the device', 'Ready to run in the next step.'),
  stateStat('loading', 'Loading', 'Being read or copied.'),
  stateStat('failed', 'Failed', 'Last load failed; requests for them are refused.', [['green'], ['red', 1]]),
  stat({
    title: 'Adapters a step, mean',
    description: 'Distinct adapters of one step: the heterogeneity that is served in one batch.',
    unit: 'short',
    decimals: 1,
    queries: [[mean(own, 'lorikeet_batch_adapters')]],
  }),
  bars({
    title: 'Memory against budget',
    description: 'Weights of adapters by tier, fullest replica.',
    unit: 'percentunit',
    scale: [['green'], ['orange', 0.8], ['red', 0.98]],
    queries: [
      [`max by (tier) (${own('lorikeet_adapter_memory_bytes')} / ${own('lorikeet_adapter_memory_limit_bytes')})`, '{{tier}}'],
    ],
  }),
]

const traffic = [
  lines({
    title: 'Requests/s',
    description: 'Sequences that ended, busiest adapters.',
    unit: 'reqps',
    stack: true,
    queries: [[byAdapter(rate(ofAdapter('lorikeet_adapter_requests_total'))), LEGEND]],
  }),
  lines({
    title: 'Tokens generated/s',
    description: 'Counted when the sequence ends.',
    unit: 'short',
    stack: true,
    queries: [[byAdapter(rate(ofAdapter('lorikeet_adapter_tokens_total', 'kind="generation"'))), LEGEND]],
  }),
  lines({
    title: 'Not successful',
    description: 'Share of sequences that ended in abort (the client left) or error.',
    unit: 'percentunit',
    max: 1,
    queries: [
      [
        top(
          `sum by (adapter) (${rate(ofAdapter('lorikeet_adapter_requests_total', 'outcome!="success"'))}) / (sum by (adapter) (${rate(ofAdapter('lorikeet_adapter_requests_total'))}) > 0)`,
        ),
        LEGEND,
      ],
    ],
  }),
]

const latency = [
  lines({
    title: 'TTFT p95, slowest adapters',
    description: 'Arrival to first token; a cold adapter pays its load here.',
    unit: 's',
    queries: [[top(quantile(0.95, ofAdapter('lorikeet_adapter_ttft_seconds_bucket'), ['adapter'])), LEGEND]],
  }),
  lines({
    title: 'End to end p95, slowest adapters',
    description: 'Arrival to end.',
    unit: 's',
    queries: [[top(quantile(0.95, ofAdapter('lorikeet_adapter_e2e_seconds_bucket'), ['adapter'])), LEGEND]],
  }),
  lines({
    title: 'Waiting requests',
    description: 'Queue by adapter: who holds whom up.',
    unit: 'short',
    stack: true,
    queries: [[byAdapter(ofAdapter('lorikeet_adapter_queue_depth')), LEGEND]],
  }),
  lines({
    title: 'Seconds waited per second, by cause',
    description: 'capacity: no room in batch or KV cache; adapter: its weights were not on the device.',
    unit: 's',
    stack: true,
    width: 12,
    queries: [[`sum by (cause) (${rate(ofAdapter('lorikeet_adapter_wait_seconds_total'))})`, '{{cause}}']],
  }),
  lines({
    title: 'Seconds waited per second for weights',
    description: 'Adapters that come and go too often: more --adapter-device-bytes or routing by adapter.',
    unit: 's',
    stack: true,
    width: 12,
    queries: [[byAdapter(rate(ofAdapter('lorikeet_adapter_wait_seconds_total', 'cause="adapter"'))), LEGEND]],
  }),
]

const loading = [
  lines({
    title: 'Loads/s',
    description: 'host: disk to memory; device: memory to device.',
    unit: 'short',
    queries: [[`sum by (tier, result) (${rate(ofAdapter('lorikeet_adapter_loads_total'))})`, '{{tier}} {{result}}']],
  }),
  lines({
    title: 'Time of a load, p95',
    description: 'disk: read, checked and compiled; host: copied to the device between steps of others.',
    unit: 's',
    queries: [[quantile(0.95, own('lorikeet_adapter_load_seconds_bucket'), ['from']), 'from {{from}}']],
  }),
  lines({
    title: 'Evictions/s',
    description: 'Taken out of a tier to make room. As many evictions as loads is thrashing.',
    unit: 'short',
    queries: [[`sum by (tier) (${rate(ofAdapter('lorikeet_adapter_evictions_total'))})`, '{{tier}}']],
  }),
  lines({
    title: 'Device memory, largest',
    description: 'Weights on the device.',
    unit: 'bytes',
    stack: true,
    width: 12,
    queries: [[byAdapter(ofAdapter('lorikeet_adapter_bytes', 'tier="device"')), LEGEND]],
  }),
  lines({
    title: 'Places on the device',
    description: 'Adapters on the device, and how many a step may hold.',
    unit: 'short',
    width: 12,
    queries: [
      [`sum(${own('lorikeet_adapter_slots_used')})`, 'used'],
      [`sum(${own('lorikeet_adapter_slots')})`, 'at most'],
    ],
  }),
]

const RANGE = '[$__range]'
const overRange = (selector) => `sum by (adapter) (increase(${selector}${RANGE}))`
const summary = [
  table({
    title: 'Adapters over the time shown',
    description: 'One line an adapter.',
    width: 24,
    height: 10,
    by: 'adapter',
    columns: [
      ['Requests', 'short'],
      ['Prompt tokens', 'short'],
      ['Output tokens', 'short'],
      ['TTFT, mean', 's'],
      ['Device loads', 'short'],
      ['Bytes on device', 'bytes'],
    ],
    queries: [
      [overRange(ofAdapter('lorikeet_adapter_requests_total'))],
      [overRange(ofAdapter('lorikeet_adapter_tokens_total', 'kind="prompt"'))],
      [overRange(ofAdapter('lorikeet_adapter_tokens_total', 'kind="generation"'))],
      [
        `${overRange(ofAdapter('lorikeet_adapter_ttft_seconds_sum'))} / (${overRange(ofAdapter('lorikeet_adapter_ttft_seconds_count'))} > 0)`,
      ],
      [overRange(ofAdapter('lorikeet_adapter_loads_total', 'tier="device"'))],
      [`sum by (adapter) (${ofAdapter('lorikeet_adapter_bytes', 'tier="device"')})`],
    ],
  }),
]

export const adapters = dashboard({
  uid: 'lorikeet-adapters',
  title: 'Lorikeet: adapters',
  description: 'Traffic, latency, memory and loading by adapter.',
  variables: [modelVariable, instanceVariable, adapterVariable],
  rows: [
    ['Fleet', fleet],
    ['Traffic', traffic],
    ['Latency and waiting', latency],
    ['Loading', loading],
    ['Summary', summary],
  ],
})
