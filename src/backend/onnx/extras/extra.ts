// Extras: primitives beyond low rank, vectors, replaced and own rows, as batched operations of the graph.
//
//   op      one batched operation at one site: what the graph must have nodes for. Equal in form means equal in shape, so adapters of
//           one form share an op and each other form is an op of its own; only ranks and sizes are padded inside one.
//   table   an array of the op with one entry an adapter of the step
//   tile    rows of one adapter in the step: [tiles, tileRows, width], multiplied with that adapter's entry
//
// A row that no op acts on is read past, not multiplied with zeros: it keeps its bits.

import { createHash } from 'node:crypto'
import type { Bottleneck, BottleneckActivation, Gate, PromptScope } from '../../../adapter/primitive.ts'

/** Where in the order of primitive.ts an op acts. At a linear the first six, at hooks the others. */
export type Stage =
  | 'input'
  | 'rotate'
  | 'delta'
  | 'scale'
  | 'late'
  | 'output'
  | 'hook'
  | 'stream'
  | 'side'
  | 'virtual'
  | 'gates'

export interface BottleneckForm {
  readonly kind: 'bottleneck'
  readonly input: Bottleneck['input']
  readonly activation: BottleneckActivation
  readonly normBeforeEps: number | null
  readonly normAfterEps: number | null
  readonly normsSublayerSum: boolean
  readonly hasGate: boolean
}

export type MixForm =
  | {
      readonly kind: Exclude<Gate['kind'], 'attention'>
      readonly numExperts: number
      readonly topK: number | null
      readonly renormalize: boolean
    }
  | { readonly kind: 'attention'; readonly numExperts: number }

/** Everything about an op but its numbers. */
export type ExtraForm =
  | { readonly kind: 'rotate'; readonly blockSize: number; readonly isShared: boolean }
  | { readonly kind: 'kron'; readonly leftShape: readonly [number, number]; readonly rightShape: readonly [number, number] }
  | { readonly kind: 'dense' }
  | { readonly kind: 'dense-rows' }
  | { readonly kind: 'sparse' }
  | { readonly kind: 'late'; readonly hasScale: boolean; readonly half: number; readonly hasShift: boolean }
  | BottleneckForm
  | { readonly kind: 'gated-low-rank' }
  | { readonly kind: 'routed-low-rank'; readonly mix: MixForm }
  | { readonly kind: 'routed-vectors'; readonly mix: MixForm }
  | { readonly kind: 'routed-bottlenecks'; readonly mix: MixForm; readonly experts: readonly BottleneckForm[] }
  | { readonly kind: 'stream-edit'; readonly activation: BottleneckActivation; readonly subtractsProjection: boolean }
  | { readonly kind: 'side-attention'; readonly numTokens: number }
  | { readonly kind: 'layer-rows' }
  | { readonly kind: 'prefix-gates' }

export interface ExtraOp {
  /** Prefix of the op's graph inputs; equal for equal site, stage, position and form. */
  readonly key: string
  readonly site: string
  readonly stage: Stage
  /** Among the ops of one stage of one adapter: they act one after the other. */
  readonly position: number
  readonly form: ExtraForm
  readonly inWidth: number
  readonly outWidth: number
  /** Names and shapes of its tables; null = padded to the longest entry of the step. */
  readonly tables: ReadonlyMap<string, TableShape>
}

export interface TableShape {
  readonly type: 'float32' | 'int32'
  readonly dims: readonly (number | null)[]
}

export interface Table {
  readonly values: Float32Array | Int32Array
  readonly dims: readonly number[]
  /** Dimensions that differ between adapters of one form. */
  readonly padded: readonly number[]
}

/** What one adapter brings to an op. */
export interface Extra {
  readonly op: ExtraOp
  readonly tables: ReadonlyMap<string, Table>
  /** Rows of the prompt it acts on; null = every row. */
  readonly scope: PromptScope | null
}

/** A primitive in the form of an op, before it has a place. */
export interface BoundForm {
  readonly form: ExtraForm
  readonly tables: ReadonlyMap<string, Table>
}

export interface ExtraPlace {
  readonly site: string
  readonly stage: Stage
  readonly position: number
  readonly inWidth: number
  readonly outWidth: number
}

export function extraOf(place: ExtraPlace, { form, tables }: BoundForm, scope: PromptScope | null = null): Extra {
  const { site, stage, position } = place
  const shapes = new Map(
    [...tables].map(([name, { values, dims, padded }]): [string, TableShape] => {
      const type = values instanceof Float32Array ? 'float32' : 'int32'
      return [name, { type, dims: dims.map((dim, axis) => (padded.includes(axis) ? null : dim)) }]
    }),
  )
  const text = JSON.stringify([form, [...shapes]])
  const key = `${site}.${stage}.${position}.${createHash('sha256').update(text).digest('hex').slice(0, 16)}`
  return { op: { key, ...place, form, tables: shapes }, tables, scope }
}

export function tableOf(values: Float32Array | Int32Array, dims: readonly number[], padded: readonly number[] = []): Table {
  return { values, dims, padded }
}

/** Bytes of an extra's tables as they lie in memory. */
export function extraBytes({ tables }: Extra): number {
  let numBytes = 0
  for (const { values } of tables.values()) numBytes += values.byteLength
  return numBytes
}
