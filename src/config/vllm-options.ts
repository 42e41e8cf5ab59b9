// Flags of vLLM that deployments pass and that decide nothing here. Those whose effect would be missed are refused.

import { type Option, option } from './option.ts'
import type { ValueKind } from './option-value.ts'
import * as value from './option-value.ts'

function ignored<V>(kind: ValueKind<V>, description: string, aliases: readonly string[] = []): Option<V | null> {
  return option('Accepted from vLLM, without effect', kind, null, description, { aliases, note: description })
}

const count = value.integer(1)
const oneDevice = value.checked(count, (n) => (n === 1 ? null : 'this version computes on one device; only 1 is accepted'))

export const VLLM_OPTIONS = {
  'enable-lora': ignored(
    value.checked(value.toggle(), (on) =>
      on ? null : 'adapters cannot be switched off; leave --adapter and --adapter-dir out',
    ),
    'Adapters are always served.',
  ),
  'max-loras': ignored(count, 'A step has no cap on adapters but memory.'),
  'max-lora-rank': ignored(count, 'Every rank is served; nothing is reserved by rank.'),
  'max-cpu-loras': ignored(count, 'Host memory for adapters is set in bytes: --adapter-host-bytes.'),
  'lora-dtype': ignored(
    value.checked(value.text('auto|float32'), (dtype) =>
      ['auto', 'float32'].includes(dtype) ? null : 'adapters compute in float32; only auto and float32 are accepted',
    ),
    'Adapters compute in float32.',
  ),
  'fully-sharded-loras': ignored(value.toggle(), 'There is one device: nothing is sharded.'),
  'lora-target-modules': ignored(
    value.checked(
      value.texts('MODULE'),
      () => "restricting modules would change what adapters compute; an adapter's own target_modules are honoured",
    ),
    'Refused: it would change what adapters compute.',
  ),
  'gpu-memory-utilization': ignored(
    value.decimal(0, 1),
    'The cuda backend takes what weights and adapters leave; --kv-cache-bytes sizes the cache.',
  ),
  'enable-chunked-prefill': ignored(
    value.checked(value.toggle(), (on) => (on ? null : 'prompts are always computed in chunks under the token budget')),
    'Prompts are always computed in chunks.',
  ),
  'scheduling-policy': ignored(
    value.choice(['fcfs', 'priority']),
    'A request with a priority is always honoured; without one, arrival decides.',
  ),
  'tensor-parallel-size': ignored(oneDevice, 'There is one device.', ['tp']),
  'pipeline-parallel-size': ignored(oneDevice, 'There is one device.', ['pp']),
  'root-path': ignored(
    value.checked(value.text('PATH'), (path) => (path === '/' ? null : 'a path prefix is not served; strip it at the proxy')),
    'A path prefix is not served.',
  ),
  'trust-remote-code': ignored(value.toggle(), 'No code of a model is ever run.'),
} as const
