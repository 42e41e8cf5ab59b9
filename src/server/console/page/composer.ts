// The prompt and how to sample: one form.

import { find } from './dom.ts'
import type { GenerationSettings } from './generation-request.ts'
import { readStored, writeStored } from './stored-settings.ts'

const PROMPT = 'prompt'
/** Fields remembered beside the prompt, by their names in the form. */
const REMEMBERED = ['mode', 'system', 'temperature', 'topP', 'maxTokens', 'seed'] as const

export interface ComposerEvents {
  onSend(settings: GenerationSettings): void
  onStop(): void
}

export class Composer {
  readonly #form: HTMLFormElement
  readonly #prompt: HTMLTextAreaElement
  readonly #send: HTMLButtonElement
  readonly #stop: HTMLButtonElement
  readonly #modes: HTMLElement
  readonly #system: HTMLElement
  #hasChat = false

  constructor(form: HTMLFormElement, events: ComposerEvents) {
    this.#form = form
    this.#prompt = find(form, '#prompt', HTMLTextAreaElement)
    this.#send = find(form, '.send', HTMLButtonElement)
    this.#stop = find(form, '.stop', HTMLButtonElement)
    this.#modes = find(form, '.modes', HTMLElement)
    this.#system = find(form, '.system', HTMLElement)
    this.#restore()
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.#remember()
      events.onSend(this.settings())
    })
    form.addEventListener('change', () => this.#showFields())
    this.#prompt.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit()
    })
    this.#stop.addEventListener('click', () => events.onStop())
    this.#showFields()
  }

  settings(): GenerationSettings {
    const data = new FormData(this.#form)
    const text = (name: string) => String(data.get(name) ?? '')
    return {
      mode: this.#hasChat && text('mode') === 'chat' ? 'chat' : 'completion',
      prompt: this.#prompt.value,
      system: text('system').trim(),
      temperature: Number(text('temperature')),
      topP: Number(text('topP')),
      maxTokens: Number(text('maxTokens')),
      seed: text('seed') === '' ? null : Number(text('seed')),
    }
  }

  setHasChat(hasChat: boolean): void {
    this.#hasChat = hasChat
    this.#showFields()
  }

  setCanSend(canSend: boolean): void {
    this.#send.disabled = !canSend
  }

  setIsRunning(isRunning: boolean): void {
    // A button that goes away takes the focus with it.
    const hadFocus = document.activeElement === this.#stop
    this.#stop.hidden = !isRunning
    if (hadFocus && !isRunning) this.#prompt.focus()
  }

  #showFields(): void {
    this.#modes.hidden = !this.#hasChat
    this.#system.hidden = this.settings().mode !== 'chat'
  }

  #field(name: string): HTMLInputElement | RadioNodeList | null {
    const field = this.#form.elements.namedItem(name)
    return field instanceof HTMLInputElement || field instanceof RadioNodeList ? field : null
  }

  #remember(): void {
    const data = new FormData(this.#form)
    writeStored(() => sessionStorage, PROMPT, this.#prompt.value)
    for (const name of REMEMBERED) writeStored(() => localStorage, name, String(data.get(name) ?? ''))
  }

  #restore(): void {
    this.#prompt.value = readStored(() => sessionStorage, PROMPT) ?? ''
    for (const name of REMEMBERED) {
      const value = readStored(() => localStorage, name)
      const field = this.#field(name)
      if (value !== null && field !== null) field.value = value
    }
  }
}
