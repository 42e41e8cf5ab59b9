import { LorikeetError } from '../errors.ts'
import { nearMiss } from './near-miss.ts'
import { findOption, OPTION_NAMES, OPTIONS, type OptionName } from './options.ts'

/** An option somewhere in flags, environment or file: its raw texts and where they stood, for messages. */
export interface GivenOption {
  readonly name: OptionName
  readonly texts: readonly string[]
  /** `--port`, `LORIKEET_PORT`, `server.json: port`. */
  readonly origin: string
}

/** Flags in order. One bare word is the model, as in `vllm serve MODEL`. Throws CONFIG_INVALID naming what is unknown. */
export function scanArgs(args: readonly string[]): readonly GivenOption[] {
  const given: GivenOption[] = []
  let at = 0
  while (at < args.length) {
    const word = args[at] as string
    at++
    if (!isFlag(word)) {
      if (given.some((one) => one.name === 'model')) {
        throw new LorikeetError('CONFIG_INVALID', { option: word, reason: 'unexpected argument; options begin with --' })
      }
      given.push({ name: 'model', texts: [word], origin: 'MODEL' })
      continue
    }
    const equals = word.indexOf('=')
    const flag = equals < 0 ? word : word.slice(0, equals)
    const { name, isNegated } = resolveFlag(flag)
    const texts = equals < 0 ? [] : [word.slice(equals + 1)]
    if (isNegated) {
      if (texts.length > 0) throw new LorikeetError('CONFIG_INVALID', { option: flag, reason: 'takes no value' })
      texts.push('false')
    } else if (texts.length === 0) {
      const taken = valuesAfter(args, at, name)
      at += taken.length
      texts.push(...(taken.length === 0 && OPTIONS[name].kind.isSwitch ? ['true'] : taken))
    }
    given.push({ name, texts, origin: flag })
  }
  return given
}

// -1 is a value, -x a flag.
function isFlag(word: string): boolean {
  return word.startsWith('-') && !/^-[\d.]/.test(word)
}

function valuesAfter(args: readonly string[], start: number, name: OptionName): readonly string[] {
  const { isList, isSwitch } = OPTIONS[name].kind
  let end = start
  while (end < args.length && !isFlag(args[end] as string) && (isList || end === start)) end++
  const words = args.slice(start, end)
  return isSwitch ? words.filter((word) => /^(true|false)$/i.test(word)) : words
}

function resolveFlag(flag: string): { readonly name: OptionName; readonly isNegated: boolean } {
  const bare = flag.replace(/^--?/, '')
  const name = findOption(bare)
  if (name !== null) return { name, isNegated: false }
  const negated = /^no[-_]/.test(bare) ? findOption(bare.slice(3)) : null
  if (negated !== null && OPTIONS[negated].kind.isSwitch) return { name: negated, isNegated: true }
  throw unknownOption(flag, bare, (near) => `--${near}`)
}

/** The error for a name that no option has, with the one that was probably meant. */
export function unknownOption(origin: string, bare: string, spell: (near: string) => string): LorikeetError {
  const candidates = OPTION_NAMES.flatMap((name) => [name, ...OPTIONS[name].aliases])
  const near = nearMiss(bare.replaceAll('_', '-').toLowerCase(), candidates)
  const hint = near === null ? '' : ` Did you mean ${spell(near)}?`
  return new LorikeetError('CONFIG_INVALID', {
    option: origin,
    reason: `no such option.${hint} lorikeet help serve lists them all`,
  })
}
