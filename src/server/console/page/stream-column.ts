// One model's answer: its text as it comes, its times, and the buttons that belong to it alone.

import { find, fromTemplate, setText } from './dom.ts'
import type { GenerationSettings } from './generation-request.ts'
import { formatCount, formatMs, formatRate } from './number-format.ts'
import type { SelectedModel } from './selection.ts'
import { ServerError, type StreamChunk } from './server-client.ts'
import { StreamMeter } from './stream-meter.ts'

export type ColumnState = 'idle' | 'queued' | 'waiting' | 'streaming' | 'done' | 'stopped' | 'failed'

const STATE_TEXTS: Readonly<Record<ColumnState, string>> = {
  idle: 'Ready',
  queued: 'Waits for a free connection of this browser',
  waiting: 'Waiting',
  streaming: 'Streaming',
  done: 'Done',
  stopped: 'Stopped',
  failed: 'Failed',
}

/** A long prompt would push the answer out of sight: its end is what the answer continues. */
const SHOWN_PROMPT_CHARS = 240
/** Nearer to the end than this, the reader follows the text; further up, they read. */
const FOLLOW_PX = 32

export interface ColumnEvents {
  onStop(): void
  onRemove(): void
  onCopyText(text: string): void
  onCopyCurl(): void
}

export class StreamColumn {
  readonly element: HTMLElement
  readonly #output: HTMLElement
  readonly #prompt: HTMLElement
  readonly #answer: Text
  readonly #error: HTMLElement
  readonly #stop: HTMLButtonElement
  #state: ColumnState = 'idle'
  #meter: StreamMeter | null = null
  /** Text that came since the last frame. */
  #pending = ''
  #frame: number | null = null

  constructor(model: SelectedModel, events: ColumnEvents) {
    this.element = fromTemplate('column-template')
    this.#output = find(this.element, '.output', HTMLElement)
    this.#prompt = find(this.element, '.prompt-echo', HTMLElement)
    this.#error = find(this.element, '.column-error', HTMLElement)
    this.#stop = find(this.element, '.stop-column', HTMLButtonElement)
    this.#answer = document.createTextNode('')
    find(this.element, '.answer', HTMLElement).append(this.#answer)
    this.element.style.setProperty('--plumage', `var(--plumage-${model.colour})`)
    this.element.setAttribute('aria-label', model.id)
    const name = find(this.element, '.column-name', HTMLElement)
    setText(name, model.id)
    name.title = model.id
    // It scrolls, so that keys must reach it.
    this.#output.tabIndex = 0
    this.#output.setAttribute('aria-label', `Output of ${model.id}`)
    this.#connect('.stop-column', `Stop ${model.id}`, () => events.onStop())
    this.#connect('.remove', `Remove ${model.id}`, () => events.onRemove())
    this.#connect('.copy-text', `Copy the output of ${model.id}`, () => events.onCopyText(this.#answer.data + this.#pending))
    this.#connect('.copy-curl', `Copy the request to ${model.id} as curl`, () => events.onCopyCurl())
    this.#setState('idle')
  }

  get state(): ColumnState {
    return this.#state
  }

  /** A new prompt: what stood here goes. */
  begin(settings: GenerationSettings, isQueued: boolean): void {
    this.#pending = ''
    this.#answer.data = ''
    this.#meter = null
    this.#error.hidden = true
    const { prompt, mode } = settings
    const isCut = prompt.length > SHOWN_PROMPT_CHARS
    setText(this.#prompt, isCut ? `… ${prompt.slice(-SHOWN_PROMPT_CHARS)}` : prompt)
    this.#prompt.classList.toggle('turn', mode === 'chat')
    this.#setState(isQueued ? 'queued' : 'waiting')
    this.#showFigures()
  }

  /** The request leaves the browser. */
  send(): void {
    this.#meter = new StreamMeter(performance.now())
    this.#setState('waiting')
  }

  receive({ text, numTokens, finishReason }: StreamChunk): void {
    this.#meter?.record(numTokens, performance.now())
    this.#pending += text
    if (this.#state === 'waiting' && numTokens > 0) this.#setState('streaming')
    if (finishReason === 'length') this.element.dataset['finish'] = 'length'
    this.#frame ??= requestAnimationFrame(() => this.#flush())
  }

  end(): void {
    this.#flush()
    this.#setState('done')
  }

  stop(): void {
    this.#flush()
    this.#setState('stopped')
  }

  fail(error: unknown): void {
    this.#flush()
    setText(this.#error, error instanceof ServerError ? error.message : `The page failed: ${String(error)}`)
    this.#error.hidden = false
    this.#setState('failed')
  }

  #connect(selector: string, label: string, listener: () => void): void {
    const button = find(this.element, selector, HTMLButtonElement)
    button.setAttribute('aria-label', label)
    button.title = label
    button.addEventListener('click', listener)
  }

  /** Once a frame, however fast the tokens come. */
  #flush(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame)
    this.#frame = null
    const { scrollHeight, scrollTop, clientHeight } = this.#output
    const isFollowed = scrollHeight - scrollTop - clientHeight < FOLLOW_PX
    this.#answer.appendData(this.#pending)
    this.#pending = ''
    if (isFollowed) this.#output.scrollTop = this.#output.scrollHeight
    this.#showFigures()
  }

  #showFigures(): void {
    const { ttftMs, numTokens, tokensPerS } = this.#meter?.figures() ?? { ttftMs: null, numTokens: 0, tokensPerS: null }
    setText(find(this.element, '.ttft', HTMLElement), ttftMs === null ? '–' : formatMs(ttftMs))
    setText(find(this.element, '.num-tokens', HTMLElement), numTokens === 0 ? '–' : formatCount(numTokens))
    setText(find(this.element, '.tokens-per-s', HTMLElement), tokensPerS === null ? '–' : `${formatRate(tokensPerS)}/s`)
  }

  #setState(state: ColumnState): void {
    if (state === 'waiting' || state === 'queued') delete this.element.dataset['finish']
    this.#state = state
    this.element.dataset['state'] = state
    const isActive = state === 'queued' || state === 'waiting' || state === 'streaming'
    // Screen readers speak the text when it is complete, not token by token.
    this.#output.setAttribute('aria-busy', String(isActive))
    // A button that goes away takes the focus with it.
    if (!isActive && document.activeElement === this.#stop) this.#output.focus()
    this.#stop.hidden = !isActive
    const isCutShort = state === 'done' && this.element.dataset['finish'] === 'length'
    setText(find(this.element, '.column-state', HTMLElement), isCutShort ? 'Done, at max tokens' : STATE_TEXTS[state])
  }
}
