// The models picked for comparison, in the order they were picked. Each keeps its colour while it stays.

export interface SelectedModel {
  readonly id: string
  /** Index into the palette. */
  readonly colour: number
}

/** As many as the palette tells apart. */
export const MAX_SELECTED = 12

/** Fires `change` whenever it changes. */
export class Selection extends EventTarget {
  readonly #models: SelectedModel[] = []

  get models(): readonly SelectedModel[] {
    return this.#models
  }

  get isFull(): boolean {
    return this.#models.length >= MAX_SELECTED
  }

  find(id: string): SelectedModel | null {
    return this.#models.find((model) => model.id === id) ?? null
  }

  /** Adds or removes; adds nothing when full. */
  toggle(id: string): void {
    const index = this.#models.findIndex((model) => model.id === id)
    if (index !== -1) this.#models.splice(index, 1)
    else if (this.isFull) return
    else this.#models.push({ id, colour: this.#freeColour() })
    this.dispatchEvent(new Event('change'))
  }

  clear(): void {
    this.#models.length = 0
    this.dispatchEvent(new Event('change'))
  }

  #freeColour(): number {
    const used = new Set(this.#models.map(({ colour }) => colour))
    let colour = 0
    while (used.has(colour)) colour++
    return colour
  }
}
