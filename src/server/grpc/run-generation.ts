// A generation from start to end for an answer in one piece.

import type { Generation, GenerationRequest } from '../generation/generation.ts'
import type { Generations } from '../generation/generations.ts'
import type { CallInfo } from './calls.ts'

/** The finished generation; null when the client left or its deadline passed first. Rejects with why it failed. */
export function runGeneration(
  request: GenerationRequest,
  info: Pick<CallInfo, 'isCancelled' | 'onCancelled' | 'span'>,
  generations: Generations,
): Promise<Generation | null> {
  return new Promise((resolve, reject) => {
    // The client may have left while an adapter was loading.
    if (info.isCancelled) return resolve(null)
    const generation = generations.start(request, {
      onOutput: () => {},
      // Deferred: `start` may finish before it has returned.
      onFinished: () => queueMicrotask(() => resolve(generation)),
      onFailed: reject,
    })
    info.span = generation.span
    info.onCancelled(() => {
      generation.abort()
      resolve(null)
    })
  })
}
