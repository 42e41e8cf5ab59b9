// The whole answer of /generate.

import { LorikeetError } from '../../../errors.ts'
import type { Tokenizer } from '../../../tokenizer/tokenizer.ts'
import type { Choice } from '../../generation/choice.ts'
import type { Generation } from '../../generation/generation.ts'
import type { LoraxResult } from '../../request/lorax-call.ts'
import { type LoraxFinish, LoraxSequence, type LoraxStep, loraxFinish } from './lorax-sequence.ts'

interface Sequence {
  readonly text: string
  readonly finish: LoraxFinish
  readonly numTokens: number
  readonly seed: number | null
  readonly prefill: readonly unknown[]
  readonly steps: readonly LoraxStep[]
}

/** Null when the server ended the generation before it was complete. */
export function loraxAnswer(generation: Generation, result: LoraxResult, tokenizer: Tokenizer): Record<string, unknown> | null {
  const sequences: Sequence[] = []
  for (const choice of generation.choices) {
    const sequence = takeSequence(choice, generation, result, tokenizer)
    if (sequence === null) return null
    sequences.push(sequence)
  }
  const [best, ...others] = byLikelihood(sequences)
  if (best === undefined) throw new LorikeetError('INTERNAL', { detail: 'a generation without a choice' })
  const text = result.isFullText ? result.inputs + best.text : best.text
  if (!result.hasDetails) return { generated_text: text }
  const details = {
    ...sequenceBody(best, result),
    prompt_tokens: generation.usage.numPromptTokens,
    skipped_tokens: 0,
    ...(others.length === 0 ? {} : { best_of_sequences: others.map((other) => namedBody(other, result)) }),
  }
  return { generated_text: text, details }
}

function takeSequence(choice: Choice, { request }: Generation, result: LoraxResult, tokenizer: Tokenizer): Sequence | null {
  const finish = loraxFinish(choice)
  if (finish === null) return null
  const sequence = new LoraxSequence(tokenizer, result)
  const steps = sequence.take(choice)
  const promptTokenIds = request.prompts[0]?.tokenIds ?? new Int32Array(0)
  return {
    text: sequence.text,
    finish,
    numTokens: choice.numOutputTokens,
    seed: result.seed === null ? null : result.seed + choice.index,
    prefill: result.hasPrefill ? sequence.prefill(promptTokenIds, choice.promptLogprobs ?? []) : [],
    steps,
  }
}

/** The highest mean logprob first. */
function byLikelihood(sequences: readonly Sequence[]): Sequence[] {
  if (sequences.length === 1) return [...sequences]
  const mean = ({ steps }: Sequence) =>
    steps.reduce((sum, { token }) => sum + (token.logprob ?? 0), 0) / Math.max(1, steps.length)
  return [...sequences].sort((a, b) => mean(b) - mean(a))
}

function namedBody(sequence: Sequence, result: LoraxResult): Record<string, unknown> {
  const text = result.isFullText ? result.inputs + sequence.text : sequence.text
  return { generated_text: text, ...sequenceBody(sequence, result) }
}

function sequenceBody({ finish, numTokens, seed, prefill, steps }: Sequence, { numTop }: LoraxResult): Record<string, unknown> {
  return {
    finish_reason: finish,
    generated_tokens: numTokens,
    seed,
    prefill,
    tokens: steps.map(({ token }) => token),
    ...(numTop === 0 ? {} : { top_tokens: steps.map(({ topTokens }) => topTokens) }),
  }
}
