// One sampled sequence of a request: engine outputs in, text and finish reason out.

import type { RequestId } from '../../core/ids.ts'
import type { RequestFinish, RequestOutput, TokenLogprobs } from '../../engine/messages.ts'
import { LorikeetError } from '../../errors.ts'
import { Detokenizer } from '../../tokenizer/detokenizer.ts'
import { StopStrings } from '../../tokenizer/stop-strings.ts'
import type { Tokenizer } from '../../tokenizer/tokenizer.ts'

export interface ChoiceOptions {
  readonly tokenizer: Tokenizer | null
  readonly stopStrings: readonly string[]
  readonly isStopIncluded: boolean
  readonly skipSpecialTokens: boolean
  /** Stop strings are not looked for in the text of the first `minTokens` tokens. */
  readonly minTokens: number
  /** Tokens the output continues, where its first word keeps its leading blank; null = the output stands alone. */
  readonly contextTokenIds: Int32Array | null
}

/** What has not been taken yet. Arrays are parallel; all but `tokenIds` are empty unless logprobs were asked for. */
export interface ChoiceDelta {
  text: string
  readonly tokenIds: number[]
  readonly logprobs: TokenLogprobs[]
  /** Code points of the choice's own text before each token. */
  readonly offsets: number[]
  /** What became final with each token, before stop strings are looked for. */
  readonly tokenTexts: string[]
}

export interface ChoiceFinish {
  readonly reason: 'stop' | 'length' | 'abort'
  /** The stop string or stop token met; null for the end-of-sequence token. */
  readonly stop: string | number | null
}

export class Choice {
  readonly requestId: RequestId
  readonly promptIndex: number
  /** Position among all choices of the response. */
  readonly index: number
  /** One entry a prompt token after the first; null when not asked for. */
  promptLogprobs: readonly TokenLogprobs[] | null = null
  finish: ChoiceFinish | null = null
  failure: LorikeetError | null = null
  /** Set with the engine's last output, whatever ended the choice. */
  engineFinish: RequestFinish | null = null
  /** Sampled tokens up to the stop, the end-of-sequence token included. */
  numOutputTokens = 0
  readonly #options: ChoiceOptions
  readonly #detokenizer: Detokenizer | null
  readonly #stops: StopStrings
  #pending: ChoiceDelta = emptyDelta()
  #matchedStop: string | null = null
  #numTextCodePoints = 0

  constructor(requestId: RequestId, promptIndex: number, index: number, options: ChoiceOptions) {
    this.requestId = requestId
    this.promptIndex = promptIndex
    this.index = index
    this.#options = options
    this.#stops = new StopStrings(options.stopStrings, options.isStopIncluded)
    this.#detokenizer =
      options.tokenizer === null
        ? null
        : new Detokenizer(options.tokenizer.table, { skipSpecialTokens: options.skipSpecialTokens })
    for (const tokenId of options.contextTokenIds ?? []) this.#detokenizer?.push(tokenId)
  }

  /** A stop string was met and the engine does not know yet. */
  get isStoppedByText(): boolean {
    return this.#matchedStop !== null && this.engineFinish === null
  }

  /** What came since the last `take`, to look at. */
  get pending(): Readonly<ChoiceDelta> {
    return this.#pending
  }

  accept(output: RequestOutput): void {
    if (output.promptLogprobs !== null) this.promptLogprobs = output.promptLogprobs
    if (this.#matchedStop === null) this.#acceptTokens(output)
    if (output.finish !== null) this.#acceptFinish(output.finish)
  }

  /** Hands over what came since the last call. */
  take(): ChoiceDelta {
    const delta = this.#pending
    this.#pending = emptyDelta()
    return delta
  }

  #acceptTokens(output: RequestOutput): void {
    const { tokenIds, logprobs, finish } = output
    const isStopTokenHidden = finish?.reason === 'stop' && !this.#options.isStopIncluded
    const numWithText = isStopTokenHidden ? tokenIds.length - 1 : tokenIds.length
    for (let i = 0; i < tokenIds.length && this.#matchedStop === null; i++) {
      const tokenId = tokenIds[i] as number
      this.numOutputTokens++
      this.#pending.tokenIds.push(tokenId)
      const entry = logprobs?.[i]
      if (entry !== undefined) {
        this.#pending.logprobs.push(entry)
        this.#pending.offsets.push(this.#numTextCodePoints)
      }
      const text = i >= numWithText || this.#detokenizer === null ? '' : this.#detokenizer.push(tokenId)
      if (entry !== undefined) {
        this.#pending.tokenTexts.push(text)
        this.#numTextCodePoints += countCodePoints(text)
      }
      if (i < numWithText) this.#acceptText(text)
    }
  }

  #acceptText(text: string): void {
    if (this.numOutputTokens <= this.#options.minTokens) {
      this.#pending.text += text
      return
    }
    const match = this.#stops.push(text)
    this.#pending.text += match.text
    this.#matchedStop = match.stop
  }

  #acceptFinish(finish: RequestFinish): void {
    this.engineFinish = finish
    if (this.#matchedStop === null) {
      this.#acceptText(this.#detokenizer?.flush() ?? '')
      if (this.#matchedStop === null) this.#pending.text += this.#stops.flush()
    }
    if (this.#matchedStop !== null) this.finish = { reason: 'stop', stop: this.#matchedStop }
    else if (finish.reason === 'error') {
      this.failure =
        finish.error === null
          ? new LorikeetError('INTERNAL', { detail: 'the request failed without a reason' })
          : LorikeetError.fromWire(finish.error)
    } else this.finish = { reason: finish.reason, stop: finish.reason === 'stop' ? finish.stopTokenId : null }
  }
}

function emptyDelta(): ChoiceDelta {
  return { text: '', tokenIds: [], logprobs: [], offsets: [], tokenTexts: [] }
}

/** Characters as Python counts them, which is what clients index by. */
export function countCodePoints(text: string): number {
  let count = text.length
  for (let i = 0; i < text.length - 1; i++) {
    const isPair = (text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00
    if (isPair) count--
  }
  return count
}
