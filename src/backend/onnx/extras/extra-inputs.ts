// Feeds the ops of a session: which adapters of the step each has, their rows as tiles, and their tables.

import { Tensor } from 'onnxruntime-node'
import type { PromptScope, SoftPrompt } from '../../../adapter/primitive.ts'
import { at, invariant } from '../../../core/invariant.ts'
import { type StepPlan, virtualTokenId } from '../../../core/step-plan.ts'
import { adaptedGroups, type DecoderLayout, type LinearGroup } from '../decoder-layout.ts'
import type { Feeds } from '../feeds.ts'
import type { ResidentAdapter } from '../resident-adapters.ts'
import type { Extra, ExtraOp } from './extra.ts'
import { OpTables } from './op-tables.ts'
import { poolTensor, rowsInScope, type TileSet, tileSetOf } from './tile-set.ts'

/** Rows of each adapter of a step, ascending. */
export type StepRows = ReadonlyMap<ResidentAdapter, readonly number[]>

/** An adapter's rows under one op. */
interface Users {
  readonly residents: readonly ResidentAdapter[]
  readonly extras: readonly Extra[]
  readonly rowsOf: readonly (readonly number[])[]
  readonly tiles: TileSet
}

export class ExtraInputs {
  readonly #groups: readonly LinearGroup[]
  readonly #tables = new OpTables()

  constructor(layout: DecoderLayout) {
    this.#groups = adaptedGroups(layout).filter(({ parts }) => parts.length > 1)
  }

  feed(feeds: Feeds, plan: StepPlan, ops: readonly ExtraOp[], stepRows: StepRows): void {
    // Most ops of a step have the same adapters in the same scope.
    const shared = new Map<string, TileSet>()
    const pools = new Map<TileSet, Tensor>()
    for (const op of ops) {
      const users = usersOf(plan, op, stepRows, shared)
      const { tiles } = users
      feeds.tensor(`${op.key}.rows`, tiles.rows)
      feeds.tensor(`${op.key}.ofToken`, tiles.ofToken)
      feeds.tensor(`${op.key}.isAdapted`, tiles.isAdapted)
      feeds.tensor(`${op.key}.rowsShape`, tiles.rowsShape)
      for (const [name, tensor] of this.#tables.tensorsOf(op, users.extras)) feeds.tensor(`${op.key}.${name}`, tensor)
      if (hasPool(op)) {
        const pool = pools.get(tiles) ?? poolTensor(plan, users.rowsOf, tiles)
        pools.set(tiles, pool)
        feeds.tensor(`${op.key}.pool`, pool)
      }
      if (op.form.kind === 'layer-rows') feeds.tensor(`${op.key}.added`, layerRows(plan, op, users))
    }
    this.#feedChangedRows(feeds, plan, ops, stepRows)
  }

  /** Lets go of what was copied for an adapter that leaves. */
  forget(extras: Iterable<Extra>): void {
    this.#tables.forget([...extras])
  }

  /** Where a part of a group reads an input of its own: the rows that go through the base product again (graph-linear.ts). */
  #feedChangedRows(feeds: Feeds, plan: StepPlan, ops: readonly ExtraOp[], stepRows: StepRows): void {
    const changing = ops.filter(({ stage }) => stage === 'input' || stage === 'rotate')
    if (changing.length === 0) return
    for (const { name, parts } of this.#groups) {
      const ofGroup = changing.filter(({ site }) => parts.some((part) => part.site === site))
      if (ofGroup.length === 0) continue
      const rows: number[] = []
      for (const [resident, own] of stepRows) if (ofGroup.some(({ key }) => resident.extras.has(key))) rows.push(...own)
      // A product of nothing crashes; row 0 goes through again for nobody.
      if (rows.length === 0) rows.push(0)
      feeds.int(`${name}.changedRows`, [rows.length]).set(rows)
      for (let input = 0; input <= parts.length; input++) {
        const rowsOfInput = feeds.int(`${name}.rowsOfInput.${input}`, [plan.numTokens])
        for (let row = 0; row < plan.numTokens; row++) rowsOfInput[row] = row
        if (input === 0) continue
        rows.forEach((row, i) => {
          rowsOfInput[row] = plan.numTokens + (input - 1) * rows.length + i
        })
      }
    }
  }
}

function usersOf(plan: StepPlan, op: ExtraOp, stepRows: StepRows, shared: Map<string, TileSet>): Users {
  const residents: ResidentAdapter[] = []
  const extras: Extra[] = []
  const rowsOf: (readonly number[])[] = []
  let name = ''
  for (const [resident, all] of stepRows) {
    const extra = resident.extras.get(op.key)
    if (extra === undefined) continue
    const rows = scopedRows(plan, op, extra.scope, all)
    if (rows.length === 0) continue
    residents.push(resident)
    extras.push(extra)
    rowsOf.push(rows)
    const { numFirst, numLast, isCappedAtHalf } = extra.scope ?? {}
    name += `${resident.adapter.id} ${numFirst} ${numLast} ${isCappedAtHalf} ${op.stage === 'virtual'},`
  }
  let tiles = shared.get(name)
  if (tiles === undefined) {
    tiles = tileSetOf(rowsOf, plan.numTokens)
    shared.set(name, tiles)
  }
  return { residents, extras, rowsOf, tiles }
}

function scopedRows(plan: StepPlan, op: ExtraOp, scope: PromptScope | null, rows: readonly number[]): readonly number[] {
  if (op.stage === 'virtual') return rows.filter((row) => (plan.tokenIds[row] as number) < 0)
  return scope === null ? rows : rowsInScope(plan, rows, scope)
}

function hasPool({ form }: ExtraOp): boolean {
  if (form.kind === 'routed-bottlenecks') return form.experts.some(({ hasGate }) => hasGate)
  return form.kind === 'gated-low-rank' || form.kind === 'prefix-gates' || (form.kind === 'bottleneck' && form.hasGate)
}

/** Each tile row's own row of its soft prompt. */
function layerRows(plan: StepPlan, { site, outWidth }: ExtraOp, { residents, rowsOf, tiles }: Users): Tensor {
  const { numTiles, tileRows } = tiles
  const added = new Float32Array(numTiles * tileRows * outWidth)
  const layer = Number(site.split('.')[1])
  for (const [tile, resident] of residents.entries()) {
    const prompt = resident.adapter.virtualTokens
    invariant(prompt?.kind === 'soft-prompt' && prompt.layerRows !== null, 'the adapter has rows of layers')
    const rows = at(layerRowsOf(prompt), layer)
    for (const [i, row] of at(rowsOf, tile).entries()) {
      const index = virtualTokenId(plan.tokenIds[row] as number)
      added.set(rows.subarray(index * outWidth, (index + 1) * outWidth), (tile * tileRows + i) * outWidth)
    }
  }
  return new Tensor('float32', added, [numTiles, tileRows, outWidth])
}

function layerRowsOf({ layerRows: rows }: SoftPrompt): readonly Float32Array[] {
  return rows ?? []
}
