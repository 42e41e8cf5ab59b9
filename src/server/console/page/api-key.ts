// The key of this server, for as long as the tab lives, and the dialog that asks for it.

import { find, setText } from './dom.ts'
import { readStored, writeStored } from './stored-settings.ts'

const NAME = 'api-key'
const REQUIRED = 'This server asks for an API key. It is kept in this tab only.'
const REFUSED = 'The server refused this key.'

/** Fires `change` when another key is to be used. */
export class ApiKey extends EventTarget {
  readonly #dialog: HTMLDialogElement
  readonly #input: HTMLInputElement
  readonly #reason: HTMLElement
  #value: string | null

  constructor(dialog: HTMLDialogElement) {
    super()
    this.#dialog = dialog
    this.#input = find(dialog, 'input', HTMLInputElement)
    this.#reason = find(dialog, '.dialog-text', HTMLElement)
    this.#value = readStored(() => sessionStorage, NAME)
    find(dialog, 'form', HTMLFormElement).addEventListener('submit', () => this.#set(this.#input.value.trim()))
    find(dialog, '.cancel', HTMLButtonElement).addEventListener('click', () => dialog.close())
  }

  /** null = none was given. */
  get value(): string | null {
    return this.#value
  }

  /** Because the user wants to, or because the server refused what it was given. */
  ask(isRefused: boolean): void {
    if (this.#dialog.open) return
    const isWrong = isRefused && this.#value !== null
    setText(this.#reason, isWrong ? REFUSED : REQUIRED)
    this.#input.toggleAttribute('aria-invalid', isWrong)
    this.#input.value = this.#value ?? ''
    this.#dialog.showModal()
    this.#input.select()
  }

  #set(value: string): void {
    this.#value = value === '' ? null : value
    writeStored(() => sessionStorage, NAME, this.#value)
    this.dispatchEvent(new Event('change'))
  }
}
