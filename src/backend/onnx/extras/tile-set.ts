// Rows of the adapters of one op as tiles: one tile an adapter, as long as the one with most rows.

import { Tensor } from 'onnxruntime-node'
import { isInScope } from '../../../adapter/arithmetic/stream-edit.ts'
import type { PromptScope } from '../../../adapter/primitive.ts'
import { callsOf, keyIndexOf } from '../../../adapter/step-calls.ts'
import { invariant } from '../../../core/invariant.ts'
import type { StepPlan } from '../../../core/step-plan.ts'

export interface TileSet {
  /** Token row of each tile row, in the order of the adapters; padding repeats row 0 and nobody reads its result. */
  readonly rows: Tensor // [tiles, tileRows]
  readonly ofToken: Tensor // [numTokens]
  readonly isAdapted: Tensor // [numTokens, 1]
  readonly rowsShape: Tensor // [3]
  readonly numTiles: number
  readonly tileRows: number
}

/** `rowsOf` lists each adapter's rows; none at all gives one tile of one row that nobody reads: an empty batch crashes operators. */
export function tileSetOf(rowsOf: readonly (readonly number[])[], numTokens: number): TileSet {
  const numTiles = Math.max(1, rowsOf.length)
  const tileRows = rowsOf.reduce((most, rows) => Math.max(most, rows.length), 1)
  const rows = new Int32Array(numTiles * tileRows)
  const ofToken = new Int32Array(numTokens)
  const isAdapted = new Uint8Array(numTokens)
  for (const [tile, own] of rowsOf.entries()) {
    rows.set(own, tile * tileRows)
    for (const [i, row] of own.entries()) {
      ofToken[row] = tile * tileRows + i
      isAdapted[row] = 1
    }
  }
  return {
    rows: new Tensor('int32', rows, [numTiles, tileRows]),
    ofToken: new Tensor('int32', ofToken, [numTokens]),
    isAdapted: new Tensor('bool', isAdapted, [numTokens, 1]),
    rowsShape: new Tensor('int64', BigInt64Array.of(1n, BigInt(tileRows), 1n), [3]),
    numTiles,
    tileRows,
  }
}

/** Averages over the calls of each tile: entry [i, j] is 1 / n where rows i and j belong to one call of n rows. */
export function poolTensor(plan: StepPlan, rowsOf: readonly (readonly number[])[], { numTiles, tileRows }: TileSet): Tensor {
  const pool = new Float32Array(numTiles * tileRows * tileRows)
  const callOf = new Map<number, readonly number[]>()
  for (const call of callsOf(plan)) for (const row of call) callOf.set(row, call)
  for (const [tile, rows] of rowsOf.entries()) {
    const indexOf = new Map(rows.map((row, i) => [row, i]))
    for (const [i, row] of rows.entries()) {
      const call = callOf.get(row) ?? [row]
      for (const other of call) {
        const j = indexOf.get(other)
        invariant(j !== undefined, 'a call lies in one tile')
        pool[(tile * tileRows + i) * tileRows + j] = 1 / call.length
      }
    }
  }
  return new Tensor('float32', pool, [numTiles, tileRows, tileRows])
}

/** Rows of `rows` (ascending) that the scope reaches. */
export function rowsInScope(plan: StepPlan, rows: readonly number[], scope: PromptScope): readonly number[] {
  let seq = 0
  return rows.filter((row) => {
    while (row >= (plan.queryStart[seq + 1] as number)) seq++
    const promptStart = plan.promptStarts[seq] as number
    return isInScope(scope, keyIndexOf(plan, seq, row) - promptStart, (plan.promptEnds[seq] as number) - promptStart)
  })
}
