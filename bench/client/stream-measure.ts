// Turns the messages of one streamed answer into the quantities of vLLM's benchmark (its definitions, plus SGLang's first text).

/** The parts of a chunk that the measurement reads; everything else is the server's business. */
interface Chunk {
  readonly choices?: readonly {
    readonly text?: string | null
    readonly delta?: { readonly content?: string | null; readonly reasoning?: string | null } | null
    readonly finish_reason?: string | null
  }[]
  readonly usage?: {
    readonly prompt_tokens?: number
    readonly completion_tokens?: number
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null
  } | null
  readonly error?: { readonly message?: string } | string | null
}

export class StreamMeasure {
  readonly #isChat: boolean
  readonly #keepsText: boolean
  readonly itlsS: number[] = []
  ttftS: number | null = null
  firstTextS: number | null = null
  /** Time of the message that ends the latency. */
  lastS = 0
  numMessages = 0
  promptTokens: number | null = null
  completionTokens: number | null = null
  cachedTokens: number | null = null
  finishReason: string | null = null
  isDone = false
  error: string | null = null
  text = ''
  #lastTokenS = 0

  constructor(isChat: boolean, keepsText: boolean) {
    this.#isChat = isChat
    this.#keepsText = keepsText
  }

  /** @param elapsedS since the request was sent */
  onData(data: string, elapsedS: number): void {
    if (data === '[DONE]') {
      this.isDone = true
      return
    }
    if (this.#isPlainToken(data)) {
      this.numMessages += 1
      this.itlsS.push(elapsedS - this.#lastTokenS)
      this.#lastTokenS = elapsedS
      this.lastS = elapsedS
      return
    }
    let chunk: Chunk
    try {
      chunk = JSON.parse(data) as Chunk
    } catch {
      this.error ??= `the server sent what is not JSON: ${data.slice(0, 80)}`
      return
    }
    if (chunk.error !== undefined && chunk.error !== null) {
      this.error ??= typeof chunk.error === 'string' ? chunk.error : (chunk.error.message ?? 'error without a message')
      return
    }
    // Chat latency runs to the last data message, usage included; completions latency to the last token message.
    if (this.#isChat) this.lastS = elapsedS
    this.#usage(chunk.usage)
    if (chunk.choices !== undefined && chunk.choices.length > 0) this.#tokens(chunk.choices, elapsedS)
  }

  /**
   * Most messages carry one more token and nothing else that is measured: told by three searches instead of a parse, which
   * costs the client a third of its time at 20,000 tokens a second. Generated text cannot look like this: its quotes are escaped.
   */
  #isPlainToken(data: string): boolean {
    return (
      this.firstTextS !== null &&
      !this.#keepsText &&
      data.includes('"choices":[{') &&
      data.includes('"finish_reason":null') &&
      !data.includes('"usage":{')
    )
  }

  #tokens(choices: NonNullable<Chunk['choices']>, elapsedS: number): void {
    this.numMessages += 1
    this.lastS = elapsedS
    if (this.ttftS === null) this.ttftS = elapsedS
    else this.itlsS.push(elapsedS - this.#lastTokenS)
    this.#lastTokenS = elapsedS
    for (const choice of choices) {
      const text = this.#isChat ? (choice.delta?.content ?? choice.delta?.reasoning) : choice.text
      if (text !== undefined && text !== null && text !== '') {
        this.firstTextS ??= elapsedS
        if (this.#keepsText) this.text += text
      }
      if (choice.finish_reason !== undefined && choice.finish_reason !== null) this.finishReason = choice.finish_reason
    }
  }

  #usage(usage: Chunk['usage']): void {
    if (usage === undefined || usage === null) return
    this.promptTokens = usage.prompt_tokens ?? this.promptTokens
    this.completionTokens = usage.completion_tokens ?? this.completionTokens
    this.cachedTokens = usage.prompt_tokens_details?.cached_tokens ?? this.cachedTokens
  }
}
