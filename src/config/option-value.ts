// How the text of an option becomes a value. A parser answers a reason (what was wrong and what to write) or the value.

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string }

/** `texts` holds at least one entry; all but lists take exactly one. */
export interface ValueKind<T> {
  /** Shown in help: `N`, `DIR`, `auto|float32`. */
  readonly placeholder: string
  /** May be given several times, and takes every following word up to the next flag. */
  readonly isList: boolean
  /** A flag alone means true; `--no-flag` means false. */
  readonly isSwitch: boolean
  readonly parse: (texts: readonly string[]) => Parsed<T>
}

const ok = <T>(value: T): Parsed<T> => ({ ok: true, value })
const bad = (reason: string): { readonly ok: false; readonly reason: string } => ({ ok: false, reason })

function single<T>(placeholder: string, parse: (text: string) => Parsed<T>): ValueKind<T> {
  return {
    placeholder,
    isList: false,
    isSwitch: false,
    parse: (texts) => {
      const [text] = texts
      if (text === undefined || text === '') return bad(`needs a value: ${placeholder}`)
      return texts.length > 1 ? bad(`takes one value, not ${texts.length}`) : parse(text)
    },
  }
}

export function text(placeholder: string): ValueKind<string> {
  return single(placeholder, ok)
}

const PLAIN_INTEGER = /^[+-]?\d{1,15}$/

/** A whole number in [min, max]. */
export function integer(min: number, max = Number.MAX_SAFE_INTEGER): ValueKind<number> {
  return single('N', (raw) => {
    const value = PLAIN_INTEGER.test(raw) ? Number(raw) : Number.NaN
    return value >= min && value <= max ? ok(value) : bad(`must be a whole number ${range(min, max)}, not '${raw}'`)
  })
}

function range(min: number, max: number): string {
  return max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
}

export function decimal(min: number, max: number): ValueKind<number> {
  return single('X', (raw) => {
    const value = /^\d*\.?\d+$/.test(raw) ? Number(raw) : Number.NaN
    return value >= min && value <= max ? ok(value) : bad(`must be a number from ${min} to ${max}, not '${raw}'`)
  })
}

// vLLM reads 8k as 8,000 and 8K as 8,192; the same rule serves bytes, where KiB, MiB and GiB say it plainly.
const MULTIPLIERS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
}

function scaled(raw: string, unit: RegExp): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgtKMGT]?)(.*)$/.exec(raw)
  const [, digits, prefix, rest] = match ?? []
  if (digits === undefined || prefix === undefined || rest === undefined || !unit.test(rest)) return null
  // KB, MB and GB are decimal, as on every disk; KiB, MiB and GiB are not.
  const multiplier = MULTIPLIERS[rest === 'B' ? prefix.toLowerCase() : prefix]
  const value = Number(digits) * (multiplier ?? Number.NaN)
  return Number.isSafeInteger(value) ? value : null
}

/** Bytes: `512MiB`, `4GiB`, `1.5G`, `100MB`, or a plain number. */
export function bytes(min: number): ValueKind<number> {
  return single('SIZE', (raw) => {
    const value = scaled(raw, /^(iB|B)?$/)
    if (value === null) return bad(`must be a size such as 512MiB or 4GiB, not '${raw}'`)
    return value >= min ? ok(value) : bad(`must be at least ${min} bytes, not '${raw}'`)
  })
}

/** Tokens: `4096`, `8k` (8,000) or `8K` (8,192), as vLLM reads them; `auto` or -1 is null. */
export function tokensOrAuto(): ValueKind<number | null> {
  return single('N', (raw) => {
    if (raw === 'auto' || raw === '-1') return ok(null)
    const value = scaled(raw, /^$/)
    return value !== null && value >= 1
      ? ok(value)
      : bad(`must be auto, a whole number of at least 1, or such as 8K, not '${raw}'`)
  })
}

/** Seconds with fractions, as milliseconds. */
export function seconds(max: number): ValueKind<number> {
  return single('SECONDS', (raw) => {
    const value = /^\d*\.?\d+$/.test(raw) ? Number(raw) : Number.NaN
    return value <= max ? ok(Math.round(value * 1000)) : bad(`must be seconds from 0 to ${max}, not '${raw}'`)
  })
}

/** One of `choices`; `aliases` are other spellings of them. */
export function choice<const T extends string>(choices: readonly T[], aliases: Readonly<Record<string, T>> = {}): ValueKind<T> {
  return single(choices.join('|'), (raw) => {
    const value = choices.find((known) => known === raw) ?? aliases[raw]
    return value === undefined ? bad(`must be one of ${choices.join(', ')}, not '${raw}'`) : ok(value)
  })
}

const TRUE = ['true', '1', 'yes', 'on']
const FALSE = ['false', '0', 'no', 'off']

export function toggle(): ValueKind<boolean> {
  return {
    placeholder: '',
    isList: false,
    isSwitch: true,
    parse: ([raw = '']) => {
      const word = raw.toLowerCase()
      if (TRUE.includes(word)) return ok(true)
      return FALSE.includes(word) ? ok(false) : bad(`must be true or false, not '${raw}'`)
    },
  }
}

/** Several words; an entry that parses to a reason fails the whole option. */
export function list<T>(placeholder: string, parseEntry: (text: string) => Parsed<T>): ValueKind<readonly T[]> {
  return {
    placeholder,
    isList: true,
    isSwitch: false,
    parse: (texts) => {
      const values: T[] = []
      for (const entry of texts) {
        const parsed = entry === '' ? bad(`needs a value: ${placeholder}`) : parseEntry(entry)
        if (!parsed.ok) return parsed
        values.push(parsed.value)
      }
      return ok(values)
    },
  }
}

export function texts(placeholder: string): ValueKind<readonly string[]> {
  return list(placeholder, ok)
}

/** A flag taken from vLLM that changes nothing here, or must be refused: `check` answers the reason. */
export function checked<T>(kind: ValueKind<T>, check: (value: T) => string | null): ValueKind<T> {
  return {
    ...kind,
    parse: (raw) => {
      const parsed = kind.parse(raw)
      if (!parsed.ok) return parsed
      const reason = check(parsed.value)
      return reason === null ? parsed : bad(reason)
    },
  }
}
