// The list of models to pick from: one stop of the Tab key, arrows within, and never more rows than a browser draws at once.

import { find, setText } from './dom.ts'
import { formatCount } from './number-format.ts'
import { MAX_SELECTED, type Selection } from './selection.ts'
import type { ModelCard } from './server-client.ts'

/** Rows beyond these are found by search; a server may have thousands. */
const MAX_ROWS = 100

export class AdapterPicker {
  readonly #search: HTMLInputElement
  readonly #list: HTMLElement
  readonly #summary: HTMLElement
  readonly #selectedCount: HTMLElement
  readonly #clear: HTMLButtonElement
  readonly #root: HTMLDetailsElement
  readonly #selection: Selection
  #models: readonly ModelCard[] = []
  #shown: readonly ModelCard[] = []
  #activeIndex = 0

  constructor(root: HTMLDetailsElement, selection: Selection) {
    this.#root = root
    this.#search = find(root, 'input', HTMLInputElement)
    this.#list = find(root, '.options', HTMLElement)
    this.#summary = find(root, '.list-summary', HTMLElement)
    this.#selectedCount = find(root, '.selected-count', HTMLElement)
    this.#clear = find(root, '.clear', HTMLButtonElement)
    this.#selection = selection
    this.#search.addEventListener('input', () => this.#filter())
    this.#search.addEventListener('keydown', (event) => this.#onSearchKey(event))
    this.#list.addEventListener('keydown', (event) => this.#onListKey(event))
    this.#list.addEventListener('click', (event) => this.#onClick(event))
    this.#clear.addEventListener('click', () => selection.clear())
    selection.addEventListener('change', () => this.#mark())
    this.#mark()
  }

  /** Base model first. */
  setModels(models: readonly ModelCard[]): void {
    this.#models = models
    this.#filter()
  }

  focusSearch(): void {
    this.#root.open = true
    this.#search.focus()
    this.#search.select()
  }

  #filter(): void {
    const wanted = this.#search.value.trim().toLowerCase()
    const found = this.#models.filter(({ id }) => id.toLowerCase().includes(wanted))
    this.#shown = found.slice(0, MAX_ROWS)
    this.#activeIndex = 0
    this.#list.replaceChildren(...this.#shown.map(optionElement))
    setText(this.#summary, summary(found.length, this.#shown.length, this.#models.length))
    this.#mark()
  }

  /** Brings the rows in line with the selection. */
  #mark(): void {
    for (const [index, element] of [...this.#list.children].entries()) {
      if (!(element instanceof HTMLElement)) continue
      const selected = this.#selection.find(this.#shown[index]?.id ?? '')
      element.setAttribute('aria-selected', String(selected !== null))
      element.toggleAttribute('aria-disabled', selected === null && this.#selection.isFull)
      element.style.setProperty('--plumage', selected === null ? 'transparent' : `var(--plumage-${selected.colour})`)
      element.classList.toggle('active', index === this.#activeIndex)
    }
    const active = this.#list.children[this.#activeIndex]
    if (active === undefined) this.#list.removeAttribute('aria-activedescendant')
    else this.#list.setAttribute('aria-activedescendant', active.id)
    const numSelected = this.#selection.models.length
    setText(this.#selectedCount, this.#selection.isFull ? `${numSelected} selected, no more fit` : `${numSelected} selected`)
    this.#clear.disabled = numSelected === 0
  }

  #onSearchKey(event: KeyboardEvent): void {
    if (event.key === 'ArrowDown') {
      event.preventDefault()
      this.#list.focus()
    } else if (event.key === 'Enter') {
      event.preventDefault()
      this.#toggle(0)
    }
  }

  #onListKey(event: KeyboardEvent): void {
    const last = this.#shown.length - 1
    const moves: Readonly<Record<string, number>> = {
      ArrowDown: Math.min(last, this.#activeIndex + 1),
      ArrowUp: this.#activeIndex - 1,
      Home: 0,
      End: last,
    }
    const to = moves[event.key]
    if (to !== undefined) {
      event.preventDefault()
      if (to < 0) this.#search.focus()
      else this.#moveTo(to)
    } else if (event.key === ' ' || event.key === 'Enter') {
      event.preventDefault()
      this.#toggle(this.#activeIndex)
    }
  }

  #onClick(event: MouseEvent): void {
    const row = event.target instanceof Element ? event.target.closest('[role=option]') : null
    const index = row === null ? -1 : [...this.#list.children].indexOf(row)
    if (index === -1) return
    this.#activeIndex = index
    this.#toggle(index)
  }

  #moveTo(index: number): void {
    this.#activeIndex = index
    this.#mark()
    this.#list.children[index]?.scrollIntoView({ block: 'nearest' })
  }

  #toggle(index: number): void {
    const model = this.#shown[index]
    if (model !== undefined) this.#selection.toggle(model.id)
  }
}

function optionElement(model: ModelCard, index: number): HTMLElement {
  const row = document.createElement('div')
  row.id = `model-${index}`
  row.className = 'option'
  row.setAttribute('role', 'option')
  const name = document.createElement('span')
  name.className = 'option-name'
  name.textContent = model.id
  name.title = model.id
  row.append(name)
  if (model.parent === null) {
    const kind = document.createElement('span')
    kind.className = 'tag'
    kind.textContent = 'base'
    row.append(kind)
  }
  return row
}

function summary(numFound: number, numShown: number, numModels: number): string {
  if (numModels === 0) return 'No models.'
  if (numFound === 0) return 'No name matches.'
  if (numShown < numFound) return `The first ${numShown} of ${formatCount(numFound)}: type to narrow.`
  return `${formatCount(numFound)} ${numFound === 1 ? 'model' : 'models'}, up to ${MAX_SELECTED} side by side.`
}
