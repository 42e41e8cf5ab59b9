import type { ValueKind } from './option-value.ts'

export const SECTIONS = [
  'Model',
  'Adapters',
  'Scheduling',
  'Server',
  'gRPC',
  'Metrics and traces',
  'Logging and configuration',
  'Accepted from vLLM, without effect',
] as const
export type Section = (typeof SECTIONS)[number]

export interface Option<T = unknown> {
  readonly section: Section
  readonly kind: ValueKind<T>
  readonly fallback: T
  /** The default as help shows it; null = nothing to show. */
  readonly shownDefault: string | null
  readonly description: string
  /** Other flag names with the same meaning. */
  readonly aliases: readonly string[]
  /** Variables of vLLM with the same meaning; LORIKEET_NAME wins. */
  readonly vllmEnv: readonly string[]
  /** Logged when the option is given: it has no effect, and why. */
  readonly note: string | null
}

interface Extras {
  readonly shown?: string
  readonly aliases?: readonly string[]
  readonly vllmEnv?: readonly string[]
  readonly note?: string
}

/** An option whose absence is `fallback`. */
export function option<V, const D>(
  section: Section,
  kind: ValueKind<V>,
  fallback: D,
  description: string,
  extras: Extras = {},
): Option<V | D> {
  const { shown, aliases = [], vllmEnv = [], note = null } = extras
  const isPlain = typeof fallback === 'string' || typeof fallback === 'number' || typeof fallback === 'boolean'
  const shownDefault = shown ?? (isPlain ? String(fallback) : null)
  return { section, kind: kind as ValueKind<V | D>, fallback, shownDefault, description, aliases, vllmEnv, note }
}
