// What LoRAX says of a request in the headers of its answer. Times are whole milliseconds.

import type { RequestMetrics } from '../../../engine/messages.ts'
import { countCodePoints } from '../../generation/choice.ts'
import type { Generation } from '../../generation/generation.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import type { ReadLoraxCall } from '../../request/lorax-call.ts'

/** Known before the first token. */
export function openingHeaders(
  { request, result }: ReadLoraxCall,
  { engine, resolver }: ServerContext,
): Record<string, string> {
  const { adapter } = request
  return {
    'x-compute-type': computeType(engine.model.backend),
    'x-compute-characters': String(countCodePoints(result.inputs)),
    'x-model-id': headerText(resolver.baseName),
    // Every adapter comes from this server's disk unless the client was told otherwise.
    ...(adapter === null
      ? {}
      : { 'x-adapter-id': headerText(adapter.name), 'x-adapter-source': result.adapterSource ?? 'local' }),
  }
}

/** Known at the end. The longest of several sequences is what the client waited for. `validationMs` is from arrival to the engine. */
export function closingHeaders(generation: Generation, validationMs: number): Record<string, string> {
  const { request, usage } = generation
  const { numPromptTokens, numOutputTokens } = usage
  const nowMs = performance.timeOrigin + performance.now()
  const total = nowMs - request.arrivedAtMs
  return {
    'x-compute-time': millis(total),
    'x-total-time': millis(total),
    ...timings(longest(generation), validationMs),
    'x-prompt-tokens': String(numPromptTokens),
    'x-generated-tokens': String(numOutputTokens),
    'x-total-tokens': String(numPromptTokens + numOutputTokens),
  }
}

function timings(metrics: RequestMetrics | null, validationMs: number): Record<string, string> {
  if (metrics === null) return {}
  const { arrivedAtMs, firstScheduledAtMs, firstTokenAtMs, finishedAtMs, numOutputTokens } = metrics
  const scheduledAtMs = firstScheduledAtMs ?? finishedAtMs
  const inference = finishedAtMs - scheduledAtMs
  const toFirst = (firstTokenAtMs ?? finishedAtMs) - scheduledAtMs
  return {
    'x-validation-time': millis(validationMs),
    'x-queue-time': millis(scheduledAtMs - arrivedAtMs - validationMs),
    'x-inference-time': millis(inference),
    'x-time-to-first-token': millis(toFirst),
    'x-time-per-token': millis(inference / Math.max(1, numOutputTokens)),
    'x-time-per-output-token': millis((inference - toFirst) / Math.max(1, numOutputTokens - 1)),
  }
}

function longest({ choices }: Generation): RequestMetrics | null {
  let found: RequestMetrics | null = null
  for (const { engineFinish } of choices) {
    if (engineFinish !== null && (found === null || engineFinish.metrics.finishedAtMs > found.finishedAtMs)) {
      found = engineFinish.metrics
    }
  }
  return found
}

/** LoRAX's words: torch's name of the device. */
export function computeType(backend: string): 'cpu' | 'cuda' {
  return backend === 'cuda' ? 'cuda' : 'cpu'
}

function millis(ms: number): string {
  return String(Math.max(0, Math.round(ms)))
}

/** Names may hold any letters, headers only ASCII. */
function headerText(name: string): string {
  if (/^[\x20-\x7e]*$/.test(name)) return name
  return encodeURIComponent(name.replace(/\p{Surrogate}/gu, '\ufffd'))
}
