import type { TokenLogprobs } from './messages.ts'
import { topIndices } from './selection.ts'

/**
 * Log-probability of `tokenId` under raw `logits` [vocabSize] (before temperature, penalties and masks), its rank, and the
 * `numTop` most likely tokens (-1 = all). Equal logits rank by token id.
 */
export function tokenLogprobs(logits: Float32Array, tokenId: number, numTop: number): TokenLogprobs {
  const chosen = logits[tokenId] as number
  let max = -Infinity
  let rank = 1
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] as number
    if (logit > max) max = logit
    if (logit > chosen || (logit === chosen && id < tokenId)) rank++
  }
  let sum = 0
  for (let id = 0; id < logits.length; id++) sum += Math.exp((logits[id] as number) - max)
  const logSum = max + Math.log(sum)
  const topTokenIds = topIndices(logits, logits.length, numTop < 0 ? logits.length : numTop)
  const topLogprobs = new Float32Array(topTokenIds.length)
  for (let i = 0; i < topTokenIds.length; i++) topLogprobs[i] = (logits[topTokenIds[i] as number] as number) - logSum
  return { tokenId, logprob: chosen - logSum, rank, topTokenIds, topLogprobs }
}
