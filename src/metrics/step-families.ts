// One observation a step of the engine.

import { STEP_ADAPTER_BOUNDS, STEP_BOUNDS_S, STEP_TOKEN_BOUNDS, TOKEN_GAP_BOUNDS_S } from './buckets.ts'
import type { MetricsRegistry } from './metrics-registry.ts'
import type { StepRecord } from './records.ts'
import type { Distribution, Tally } from './text-family.ts'

export interface StepFamiliesOptions {
  readonly labels: Readonly<Record<string, string>>
  readonly hasLegacyNames: boolean
}

export class StepFamilies {
  readonly #tokens: Distribution
  /** Under its name and its old name. */
  readonly #tokenGaps: readonly Distribution[]
  readonly #adapters: Distribution
  readonly #phases: Readonly<Record<'schedule' | 'execute' | 'sample' | 'update', Distribution>>
  readonly #nativeSeconds: Tally

  constructor(registry: MetricsRegistry, { labels, hasLegacyNames }: StepFamiliesOptions) {
    const names = Object.keys(labels)
    const distribution = (name: string, help: string, bounds: readonly number[]) =>
      registry.distribution(name, help, names, bounds).series(labels)
    this.#tokens = distribution('vllm:iteration_tokens_total', 'Tokens of a step.', STEP_TOKEN_BOUNDS)
    const gaps = distribution(
      'vllm:inter_token_latency_seconds',
      'Time between two successive tokens of a sequence.',
      TOKEN_GAP_BOUNDS_S,
    )
    const oldName = 'vllm:time_per_output_token_seconds'
    const help = 'Old name of vllm:inter_token_latency_seconds.'
    this.#tokenGaps = hasLegacyNames ? [gaps, distribution(oldName, help, TOKEN_GAP_BOUNDS_S)] : [gaps]
    this.#adapters = registry
      .distribution('lorikeet_batch_adapters', 'Distinct adapters of a step.', [], STEP_ADAPTER_BOUNDS)
      .series({})
    const phases = registry.distribution(
      'lorikeet_step_seconds',
      'Time of a step by phase: schedule, execute, sample, update.',
      ['phase'],
      STEP_BOUNDS_S,
    )
    this.#phases = {
      schedule: phases.series({ phase: 'schedule' }),
      execute: phases.series({ phase: 'execute' }),
      sample: phases.series({ phase: 'sample' }),
      update: phases.series({ phase: 'update' }),
    }
    const native = 'lorikeet_step_native_seconds_total'
    this.#nativeSeconds = registry.tally(native, 'counter', 'Part of the execute phase inside native code.', []).series({})
  }

  /** A message of the engine that no forward pass came before (`numTokens` 0) is no step. */
  observe(step: StepRecord): void {
    if (step.numTokens === 0) return
    this.#tokens.observe(step.numTokens)
    this.#adapters.observe(step.numAdapters)
    this.#phases.schedule.observe(step.scheduleMs / 1000)
    this.#phases.execute.observe(step.executeMs / 1000)
    this.#phases.sample.observe(step.sampleMs / 1000)
    this.#phases.update.observe(step.updateMs / 1000)
    this.#nativeSeconds.add(step.nativeMs / 1000)
    for (const { gapMs, count } of step.tokenGaps) {
      for (const gaps of this.#tokenGaps) gaps.observe(gapMs / 1000, count)
    }
  }
}
