// A mixture on disk: `lorikeet_mixture.json` names other adapter directories and their weights (docs/adapter-format.md).

import { realpathSync, statSync } from 'node:fs'
import { dirname, join, sep } from 'node:path'
import { isFile, readJsonObject } from '../json-file.ts'
import { show } from '../peft/config-fields.ts'
import type { Refuse } from '../peft/refuse.ts'

const MIXTURE_FILE = 'lorikeet_mixture.json'

/** Of the format; a file of another one is refused. */
const MIXTURE_VERSION = 1

/** `sum`: of what the members compute. `average-weights`: of their tensors. */
export type Combination = 'sum' | 'average-weights'

export interface MixtureMember {
  /** Directory, absolute. */
  readonly path: string
  readonly weight: number
  /** Of its weights when it was loaded; absent = whatever the files hold. */
  readonly digest?: string
}

export interface MixtureDirectory {
  readonly format: 'mixture'
  readonly kind: string
  readonly combine: Combination
  readonly members: readonly MixtureMember[]
}

/** Null where the directory holds no mixture. Throws ADAPTER_REFUSED naming the key at fault. */
export function readMixtureDirectory(dir: string, refuse: Refuse): MixtureDirectory | null {
  if (!isMixture(dir)) return null
  const path = join(dir, MIXTURE_FILE)
  const { version, kind = 'mixture', combine = 'sum', members, ...rest } = readJsonObject(path, MIXTURE_FILE, refuse)
  if (version !== MIXTURE_VERSION)
    throw refuse('version', `${show(version)} is not ${MIXTURE_VERSION}, the version this server reads`)
  if (typeof kind !== 'string' || kind === '') throw refuse('kind', `${show(kind)} is not a name`)
  if (combine !== 'sum' && combine !== 'average-weights') {
    throw refuse('combine', `${show(combine)} is neither sum nor average-weights`)
  }
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw refuse(unknown, 'is a key this server does not know')
  if (!Array.isArray(members) || members.length === 0) throw refuse('members', `${show(members)} is not a list of members`)
  return { format: 'mixture', kind, combine, members: members.map((member: unknown, i) => readMember(dir, member, i, refuse)) }
}

function readMember(dir: string, value: unknown, index: number, refuse: Refuse): MixtureMember {
  const field = `members[${index}]`
  const { path, weight, ...rest } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) throw refuse(`${field}.${unknown}`, 'is a key this server does not know')
  if (typeof path !== 'string' || path === '') throw refuse(`${field}.path`, `${show(path)} is not a directory`)
  if (typeof weight !== 'number' || !Number.isFinite(weight)) throw refuse(`${field}.weight`, `${show(weight)} is not a number`)
  // Who may place a mixture in one folder of adapters must not thereby read others.
  const found = realDirectory(join(dir, path))
  if (found === null || !found.startsWith(dirname(realpathSync(dir)) + sep)) {
    throw refuse(`${field}.path`, `${show(path)} is no directory beside or below the mixture's`)
  }
  if (isMixture(found)) throw refuse(`${field}.path`, `${show(path)} is a mixture itself; name its members`)
  return { path: found, weight }
}

function isMixture(dir: string): boolean {
  return isFile(join(dir, MIXTURE_FILE))
}

function realDirectory(path: string): string | null {
  try {
    const found = realpathSync(path)
    return statSync(found).isDirectory() ? found : null
  } catch {
    return null
  }
}
