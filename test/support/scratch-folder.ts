import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folders: string[] = []
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** A fresh folder that goes away with the process of the test file. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lorikeet-'))
  folders.push(folder)
  return folder
}
