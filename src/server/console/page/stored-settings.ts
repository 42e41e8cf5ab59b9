// What the page remembers between visits. A browser that keeps nothing (private windows, full storage) costs only the memory.

const PREFIX = 'lorikeet.'

/** null when there is none, or it is not readable. */
export function readStored(storage: () => Storage, name: string): string | null {
  try {
    return storage().getItem(PREFIX + name)
  } catch {
    return null
  }
}

/** null removes it. */
export function writeStored(storage: () => Storage, name: string, value: string | null): void {
  try {
    if (value === null) storage().removeItem(PREFIX + name)
    else storage().setItem(PREFIX + name, value)
  } catch {
    // Nothing is lost but the convenience.
  }
}
