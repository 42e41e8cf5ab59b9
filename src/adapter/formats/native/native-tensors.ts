import {
  findNonFinite,
  openSafetensors,
  readTensorF32,
  readTensorI32,
  type SafetensorsEntry,
} from '../../../model/safetensors.ts'
import type { Refuse } from '../peft/refuse.ts'

/** The tensors of a native adapter. Several entries may name one tensor: it is read once, and its memory is shared. */
export class NativeTensors {
  readonly #refuse: Refuse
  readonly #entries: ReadonlyMap<string, SafetensorsEntry>
  readonly #floats = new Map<string, { readonly values: Float32Array; readonly shape: readonly number[] }>()
  readonly #integers = new Map<string, Int32Array>()

  constructor(path: string, refuse: Refuse) {
    this.#refuse = refuse
    this.#entries = openSafetensors(path).tensors
  }

  /** `field` is the key that names it. */
  read(name: string, field: string): { readonly values: Float32Array; readonly shape: readonly number[] } {
    const known = this.#floats.get(name)
    if (known !== undefined) return known
    const entry = this.#entry(name, field)
    const values = readTensorF32(entry)
    const bad = findNonFinite(values)
    if (bad !== -1) throw this.#refuse(name, `holds ${values[bad]} at element ${bad}`)
    const tensor = { values, shape: entry.shape }
    this.#floats.set(name, tensor)
    return tensor
  }

  readIntegers(name: string, field: string): Int32Array {
    const values = this.#integers.get(name) ?? readTensorI32(this.#entry(name, field))
    this.#integers.set(name, values)
    return values
  }

  /** Refuses the adapter when the program names a tensor of the file nowhere. */
  finish(): void {
    const unused = [...this.#entries.keys()].find((name) => !this.#floats.has(name) && !this.#integers.has(name))
    if (unused !== undefined) throw this.#refuse(unused, 'is named by no entry of the program')
  }

  #entry(name: string, field: string): SafetensorsEntry {
    const entry = this.#entries.get(name)
    if (entry === undefined) throw this.#refuse(field, `names the tensor ${name}, which the file does not have`)
    return entry
  }
}
