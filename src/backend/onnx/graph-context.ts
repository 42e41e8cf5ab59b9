import type { DecoderSpec, RopeSpec } from '../../model/decoder-spec.ts'
import type { ModelSource } from '../../model/model-source.ts'
import type { DecoderLayout } from './decoder-layout.ts'
import type { GraphBuilder, Value } from './graph-builder.ts'
import type { GraphVariant } from './graph-variant.ts'
import type { WeightStore } from './weight-store.ts'

/** What every part of the decoder graph is built from. */
export interface GraphContext {
  readonly graph: GraphBuilder
  readonly spec: DecoderSpec
  readonly layout: DecoderLayout
  readonly model: ModelSource
  readonly store: WeightStore
  readonly variant: GraphVariant
  /** Tokens a KV block. */
  readonly blockSize: number
}

/** Rotary tables are fed once for all layers that rotate alike. */
export function distinctRopes(spec: DecoderSpec): readonly RopeSpec[] {
  const ropes = new Map<string, RopeSpec>()
  for (const { rope } of spec.layers) if (rope !== null) ropes.set(ropeKey(rope), rope)
  return [...ropes.values()]
}

export function ropeKey(rope: RopeSpec): string {
  return JSON.stringify([rope.rotaryDim, rope.theta, rope.scaling])
}

/** Attention masks are fed once for all layers that see as far. */
export function distinctWindows(spec: DecoderSpec): readonly (number | null)[] {
  return [...new Set(spec.layers.map(({ slidingWindow }) => slidingWindow))]
}

export function maskName(prefix: string, window: number | null): string {
  return `${prefix}.mask.${window ?? 'all'}`
}

/** x [numRows, n] times the table row of each row's adapter, plus another. Entries are the step's adapters, base first. */
export function gatherEntries(context: GraphContext, table: string, width: number, entries: Value): Value {
  const values = context.graph.input(table, 'float32', ['numEntries', width])
  return context.graph.node('Gather', [values, entries], { axis: 0 })
}
