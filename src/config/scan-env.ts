import { LorikeetError } from '../errors.ts'
import { envName, OPTION_NAMES, OPTIONS, type OptionName } from './options.ts'
import { type GivenOption, unknownOption } from './scan-args.ts'

export type Environment = Readonly<Record<string, string | undefined>>

const PREFIX = 'LORIKEET_'

// For a Service named lorikeet, Kubernetes sets LORIKEET_SERVICE_HOST, LORIKEET_PORT=tcp://10.0.0.1:80 and more in every pod beside it.
const KUBERNETES = /^LORIKEET_(SERVICE_|PORT_\d+_)/
const KUBERNETES_PORT = /^tcp:\/\//

/** LORIKEET_* and the variables of vLLM that mean the same; an empty variable is an absent one. Throws CONFIG_INVALID for an unknown name. */
export function scanEnv(env: Environment): readonly GivenOption[] {
  const names = new Map<string, OptionName>(OPTION_NAMES.map((name) => [envName(name), name]))
  for (const variable of Object.keys(env)) {
    if (!variable.startsWith(PREFIX) || names.has(variable) || KUBERNETES.test(variable)) continue
    throw unknownOption(variable, variable.slice(PREFIX.length), (near) => PREFIX + near.replaceAll('-', '_').toUpperCase())
  }
  const given: GivenOption[] = []
  for (const [variable, name] of names) {
    const own = env[variable] ?? ''
    if (own !== '' && !(name === 'port' && KUBERNETES_PORT.test(own))) {
      given.push({ name, texts: splitValue(name, own, variable), origin: variable })
      continue
    }
    const foreign = OPTIONS[name].vllmEnv.find((known) => (env[known] ?? '') !== '')
    // A key may hold a comma, and vLLM takes one key: its variable is not split.
    const raw = foreign === undefined ? undefined : env[foreign]
    if (foreign === undefined || raw === undefined) continue
    given.push({ name, texts: name === 'api-key' ? [raw] : splitValue(name, raw, foreign), origin: foreign })
  }
  return given
}

/** Lists are JSON arrays, or words between commas. */
function splitValue(name: OptionName, raw: string, origin: string): readonly string[] {
  if (!OPTIONS[name].kind.isList) return [raw]
  const trimmed = raw.trim()
  if (trimmed.startsWith('{')) return [trimmed]
  if (!trimmed.startsWith('[')) return trimmed.split(',').map((word) => word.trim())
  try {
    const entries: unknown = JSON.parse(trimmed)
    if (Array.isArray(entries)) return entries.map((entry) => (typeof entry === 'string' ? entry : JSON.stringify(entry)))
  } catch {
    // Reported below, with the variable's name.
  }
  throw new LorikeetError('CONFIG_INVALID', { option: origin, reason: 'begins like a JSON array and is none' })
}
