import { readFileSync } from 'node:fs'
import { invariant } from '../core/invariant.ts'

/** Of package.json, which lies two folders above this file both in src and in dist. */
export function readVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const isManifest = typeof manifest === 'object' && manifest !== null && 'version' in manifest
  invariant(isManifest && typeof manifest.version === 'string', 'package.json has a version')
  return manifest.version
}
