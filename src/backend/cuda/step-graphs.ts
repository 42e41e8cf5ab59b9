// Decode steps as recorded graphs: one launch from the host in place of several hundred. A graph serves every step of the same
// padded size whose adapters ask for the same work; which rows, ranks and weights those are it reads from the step's inputs.

import type { PackedStep, StepCapacity } from './step-inputs.ts'
import type { Graph, Stream } from './stream.ts'

/** Larger decode steps are bound by the device, and a graph would save little. */
const MAX_GRAPH_ROWS = 512

/** Most graphs kept: each takes some megabytes of device memory. The oldest unused goes first. */
const MAX_GRAPHS = 64

export class StepGraphs implements Disposable {
  readonly #stream: Stream
  readonly #graphs = new Map<string, Graph>()
  /** Shapes launched once kernel by kernel, which sized every buffer and chose every algorithm. */
  readonly #warm = new Set<string>()
  #generation = -1

  constructor(stream: Stream) {
    this.#stream = stream
  }

  /** False where the step cannot be a graph, or not yet: the caller then launches it. */
  tryRun(step: PackedStep, capacity: StepCapacity, generation: number, launch: () => void): boolean {
    const { features } = step
    // Their products take other weights in every step.
    if (features.replacedRuns.length > 0 || features.replacedLogitRuns.length > 0) return false
    if (capacity.numTokens > MAX_GRAPH_ROWS) return false
    if (generation !== this.#generation) this.#clear()
    this.#generation = generation
    const key = keyOf(step, capacity)
    const known = this.#graphs.get(key)
    if (known !== undefined) {
      // A map keeps the order of insertion: what is used moves to its end.
      this.#graphs.delete(key)
      this.#graphs.set(key, known)
      known.launch(this.#stream)
      return true
    }
    if (!this.#warm.has(key)) {
      this.#warm.add(key)
      return false
    }
    const graph = this.#stream.capture(launch)
    this.#graphs.set(key, graph)
    graph.launch(this.#stream)
    this.#dropOldest()
    return true
  }

  [Symbol.dispose](): void {
    this.#clear()
  }

  #dropOldest(): void {
    if (this.#graphs.size <= MAX_GRAPHS) return
    for (const [key, graph] of this.#graphs) {
      this.#stream.synchronize()
      graph[Symbol.dispose]()
      this.#graphs.delete(key)
      return
    }
  }

  #clear(): void {
    if (this.#graphs.size > 0) this.#stream.synchronize()
    for (const graph of this.#graphs.values()) graph[Symbol.dispose]()
    this.#graphs.clear()
    this.#warm.clear()
  }
}

function keyOf({ features }: PackedStep, { numTokens, numLogitRows }: StepCapacity): string {
  const { editedGroups, scaledGroups, hasHeadRows, shrinkStride, numTiles, numLogitTiles, tileSize } = features
  return [
    numTokens,
    numLogitRows,
    editedGroups,
    scaledGroups,
    hasHeadRows,
    shrinkStride,
    numTiles,
    numLogitTiles,
    tileSize,
  ].join()
}
