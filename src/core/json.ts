// Narrowing of parsed JSON.

export type JsonObject = Readonly<Record<string, unknown>>

/** True for `{}` and what JSON.parse makes of it; false for arrays and null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
