// One onnxruntime session a graph variant. All map the same packed weights, so a variant costs its nodes only.

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { InferenceSession } from 'onnxruntime-node'
import { invariant } from '../../core/invariant.ts'
import { LorikeetError } from '../../errors.ts'
import { buildDecoderGraph } from './decoder-graph.ts'
import type { GraphContext } from './graph-context.ts'
import { type GraphVariant, variantName } from './graph-variant.ts'
import { LOG_ERRORS } from './weight-store.ts'

export interface DecoderSession {
  readonly session: InferenceSession
  readonly inputNames: readonly string[]
}

export class Sessions {
  readonly #context: Omit<GraphContext, 'graph' | 'variant'>
  readonly #numThreads: number
  readonly #open = new Map<string, DecoderSession>()

  constructor(context: Omit<GraphContext, 'graph' | 'variant'>, numThreads: number) {
    this.#context = context
    this.#numThreads = numThreads
  }

  /** Opens the variant's session where there is none yet. Throws BACKEND_FAILED. */
  async open(variant: GraphVariant): Promise<DecoderSession> {
    const name = variantName(variant)
    const known = this.#open.get(name)
    if (known !== undefined) return known
    const { model, inputNames } = buildDecoderGraph({ ...this.#context, variant })
    const path = join(this.#context.store.dir, `${name}-${process.pid}.onnx`)
    const opened = { session: await this.#create(path, model), inputNames }
    invariant(!this.#open.has(name), 'the engine opens one session at a time')
    this.#open.set(name, opened)
    return opened
  }

  async release(): Promise<void> {
    for (const { session } of this.#open.values()) await session.release()
    this.#open.clear()
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
