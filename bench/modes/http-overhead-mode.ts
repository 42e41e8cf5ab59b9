import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { LorikeetError } from '../../src/errors.ts'

/** `bench http`: autocannon against the null backend. A development dependency, so only a checkout can run it. */
export async function runHttpOverhead(args: readonly string[]): Promise<number> {
  const script = findUp('bench/http-overhead.ts')
  if (script === null) {
    throw new LorikeetError('CONFIG_INVALID', { option: 'http', reason: 'needs a checkout with its development dependencies' })
  }
  const cwd = dirname(dirname(script))
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { stdio: 'inherit', cwd })
  return await new Promise((resolve) => child.on('exit', (code) => resolve(code ?? 1)))
}

function findUp(path: string): string | null {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, path))) return join(folder, path)
    if (dirname(folder) === folder) return null
  }
}
