// What `npm ci` would trip over on another machine, found without a network.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'

interface LockedPackage {
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly hasInstallScript?: boolean
}

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
const readJson = (file: string): unknown => JSON.parse(readFileSync(resolve(ROOT, file), 'utf8'))

const { packages } = readJson('package-lock.json') as { readonly packages: Readonly<Record<string, LockedPackage>> }
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

it('the lock file holds the packages of every platform', () => {
  const locked = new Set(Object.keys(packages).map(nameOf))
  const missing = Object.values(packages).flatMap(({ optionalDependencies = {} }) =>
    Object.keys(optionalDependencies).filter((name) => !locked.has(name)),
  )
  assert.deepEqual(missing, [], 'npm ci refuses such a lock file; pin a release whose platform packages all exist')
})

it('every install script is allowed or denied by name', () => {
  const { allowScripts } = readJson('package.json') as { readonly allowScripts: Readonly<Record<string, boolean>> }
  const scripted = Object.entries(packages).filter(([, { hasInstallScript }]) => hasInstallScript)
  const undecided = scripted.map(([path]) => nameOf(path)).filter((name) => !(name in allowScripts))
  assert.deepEqual(undecided, [], 'an install script may download what is not in the registry: decide in allowScripts')
})
