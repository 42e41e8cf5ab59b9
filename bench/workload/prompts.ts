// Prompts of a wanted length. Token ids are exact where the server takes them; words are close where it takes only text.
import { createRandom, drawIndex, type Random } from '../random/random.ts'

export interface PromptSource {
  /** Ids that the served tokenizer gave for ordinary text, so that no prompt holds a special token. Empty = prompts are words. */
  readonly tokenPool: readonly number[]
  readonly seed: number
  /** Tokens shared at the head of every prompt of the same group. */
  readonly sharedPrefixLen: number
  /** Groups that share a prefix; a request's group is its index modulo this. */
  readonly numPrefixes: number
  /** Tokens a block id of the trace stands for. */
  readonly blockTokens: number
}

/** Words of one token in most vocabularies. */
const WORDS = (
  'the and one two three day night tree house bird river road stone light water small big old new red blue green ' +
  'good time hand door book word fire wind cold warm long high low far near left right open home work play walk'
).split(' ')

/**
 * A prompt of `numTokens` tokens as a list of ids, or as words. Equal seeds give equal prompts; requests differ from their
 * first token on, unless a shared prefix or the trace's block ids say otherwise, so that a prefix cache gains nothing by chance.
 */
export function makePrompt(
  source: PromptSource,
  index: number,
  numTokens: number,
  blockIds: readonly number[] | null,
): readonly number[] | string {
  const pieces: (number | string)[] = []
  const pool: readonly (number | string)[] = source.tokenPool.length > 0 ? source.tokenPool : WORDS
  const draw = (random: Random, count: number): void => {
    for (let drawn = 0; drawn < count; drawn += 1) pieces.push(pool[drawIndex(random, pool.length)] as number | string)
  }
  const room = (): number => Math.max(0, numTokens - pieces.length)
  if (source.sharedPrefixLen > 0) {
    const group = index % Math.max(1, source.numPrefixes)
    draw(createRandom(source.seed, `prefix-${group}`), Math.min(source.sharedPrefixLen, room()))
  }
  for (const id of blockIds ?? []) {
    if (room() === 0) break
    draw(createRandom(source.seed, `block-${id}`), Math.min(source.blockTokens, room()))
  }
  draw(createRandom(source.seed, `prompt-${index}`), room())
  return source.tokenPool.length > 0 ? (pieces as number[]) : pieces.join(' ')
}
