import { invariant } from '../../src/core/invariant.ts'

/** A binary heap that gives the item of the smallest key first; equal keys in no promised order. */
export class MinHeap<T> {
  readonly #keyOf: (item: T) => number
  readonly #items: T[] = []

  constructor(keyOf: (item: T) => number) {
    this.#keyOf = keyOf
  }

  get size(): number {
    return this.#items.length
  }

  push(item: T): void {
    const items = this.#items
    let index = items.length
    items.push(item)
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!this.#isBefore(index, parent)) return
      this.#swap(index, parent)
      index = parent
    }
  }

  pop(): T {
    const items = this.#items
    const top = items[0]
    const last = items.pop()
    invariant(top !== undefined && last !== undefined, 'pop from an empty heap')
    if (items.length === 0) return top
    items[0] = last
    this.#sink()
    return top
  }

  #sink(): void {
    let index = 0
    for (;;) {
      let smallest = index
      for (const child of [2 * index + 1, 2 * index + 2]) {
        if (child < this.#items.length && this.#isBefore(child, smallest)) smallest = child
      }
      if (smallest === index) return
      this.#swap(index, smallest)
      index = smallest
    }
  }

  #isBefore(index: number, other: number): boolean {
    return this.#keyOf(this.#items[index] as T) < this.#keyOf(this.#items[other] as T)
  }

  #swap(index: number, other: number): void {
    const held = this.#items[index] as T
    this.#items[index] = this.#items[other] as T
    this.#items[other] = held
  }
}
