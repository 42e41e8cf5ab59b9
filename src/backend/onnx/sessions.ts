// One onnxruntime session a graph variant. All map the same packed weights, so a variant costs its nodes only.

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { InferenceSession } from 'onnxruntime-node'
import { LorikeetError } from '../../errors.ts'
import { buildDecoderGraph } from './decoder-graph.ts'
import type { GraphContext } from './graph-context.ts'
import { type GraphVariant, variantName } from './graph-variant.ts'
import { LOG_ERRORS } from './weight-store.ts'

export interface DecoderSession {
  readonly session: InferenceSession
  readonly inputNames: readonly string[]
}

interface OpenSession extends DecoderSession {
  readonly variant: GraphVariant
  readonly opKeys: ReadonlySet<string>
}

/** Graphs with ops that stay open: each holds its nodes, a few MB, and adapters come and go in ever new sets. */
const MAX_OPEN_WITH_OPS = 32

export class Sessions {
  readonly #context: Omit<GraphContext, 'graph' | 'variant'>
  readonly #numThreads: number
  /** Last used last. */
  readonly #open = new Map<string, OpenSession>()
  readonly #opening = new Map<string, Promise<DecoderSession>>()

  constructor(context: Omit<GraphContext, 'graph' | 'variant'>, numThreads: number) {
    this.#context = context
    this.#numThreads = numThreads
  }

  /** Opens the variant's session where there is none yet. Throws BACKEND_FAILED. */
  async open(variant: GraphVariant): Promise<DecoderSession> {
    const name = variantName(variant)
    const known = this.#open.get(name)
    if (known !== undefined) {
      this.#open.delete(name)
      this.#open.set(name, known)
      return known
    }
    // Adapters are prepared while steps run: both may want one graph at the same time.
    let opening = this.#opening.get(name)
    if (opening === undefined) {
      opening = this.#build(name, variant).finally(() => this.#opening.delete(name))
      this.#opening.set(name, opening)
    }
    return opening
  }

  async #build(name: string, variant: GraphVariant): Promise<DecoderSession> {
    const { model, inputNames } = buildDecoderGraph({ ...this.#context, variant })
    const path = join(this.#context.store.dir, `${name}-${process.pid}.onnx`)
    const opened = {
      session: await this.#create(path, model),
      inputNames,
      variant,
      opKeys: new Set(variant.extras.map(({ key }) => key)),
    }
    this.#open.set(name, opened)
    await this.#releaseOldest()
    return opened
  }

  /**
   * The open variant with the fewest ops that has all that `variant` has. Sets of ops are as many as sets of adapters, so a mixed
   * step runs in a graph that has more; what it does not use computes one row for nobody.
   */
  cover(variant: GraphVariant): GraphVariant | null {
    let best: GraphVariant | null = null
    for (const { variant: open, opKeys } of this.#open.values()) {
      if (open.hasChunks !== variant.hasChunks || open.lowRank !== variant.lowRank) continue
      if ((variant.hasVectors && !open.hasVectors) || (variant.hasSplitInputs && !open.hasSplitInputs)) continue
      if (best !== null && costOf(open) >= costOf(best)) continue
      if (variant.extras.every(({ key }) => opKeys.has(key))) best = open
    }
    return best
  }

  async release(): Promise<void> {
    for (const { session } of this.#open.values()) await session.release()
    this.#open.clear()
  }

  /** Of the graphs with ops, the one used longest ago, where they are too many. The engine runs one step at a time, in the newest. */
  async #releaseOldest(): Promise<void> {
    const withOps = [...this.#open].filter(([, { variant }]) => variant.extras.length > 0)
    const [oldest] = withOps
    if (withOps.length <= MAX_OPEN_WITH_OPS || oldest === undefined) return
    this.#open.delete(oldest[0])
    await oldest[1].session.release()
  }

  async #create(path: string, model: Uint8Array): Promise<InferenceSession> {
    try {
      // From a file: external data is looked up beside it.
      writeFileSync(path, model)
      return await InferenceSession.create(path, {
        // The graph is written as it should run; a fusion would change an operator away from what its weights were packed for.
        graphOptimizationLevel: 'disabled',
        logSeverityLevel: LOG_ERRORS,
        ...(this.#numThreads > 0 ? { intraOpNumThreads: this.#numThreads } : {}),
        // Each session has its own threads: those of the last step must not spin beside those of the next.
        extra: { session: { force_spinning_stop: '1' } },
      })
    } catch (error) {
      throw new LorikeetError('BACKEND_FAILED', { backend: 'onnx', detail: `cannot open ${path}: ${error}` }, { cause: error })
    } finally {
      rmSync(path, { force: true })
    }
  }
}

/** Vectors have nodes at every linear and norm. */
function costOf({ extras, hasVectors, hasSplitInputs }: GraphVariant): number {
  return extras.length * 2 + Number(hasVectors) + Number(hasSplitInputs)
}
