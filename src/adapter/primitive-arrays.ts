// What does not depend on the kind of a primitive: its arrays, its bytes, and everything about it but the numbers in them.

/** Arrays inside a primitive, a mixture of primitives, or virtual tokens, in the order of their fields. */
export function arraysOf(value: unknown): readonly (Float32Array | Int32Array)[] {
  if (value instanceof Float32Array || value instanceof Int32Array) return [value]
  if (typeof value !== 'object' || value === null) return []
  return fieldsOf(value).flatMap(([, field]) => arraysOf(field))
}

/** Canonical text of all else; the lengths of the arrays are in it, so that no two primitives share text and bytes. */
export function tagOf(value: unknown): string {
  return JSON.stringify(outlineOf(value))
}

function outlineOf(value: unknown): unknown {
  if (value instanceof Float32Array || value instanceof Int32Array) return { length: value.length }
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0) ? value : String(value)
  if (typeof value !== 'object' || value === null) return value
  return fieldsOf(value).map(([name, field]) => [name, outlineOf(field)])
}

/** By name: two writers of one primitive may name its fields in any order. */
function fieldsOf(value: object): readonly (readonly [string, unknown])[] {
  if (Array.isArray(value)) return value.map((field, index) => [String(index), field as unknown] as const)
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
}
