// A real browser for tests of the page: the system's own, since playwright-core brings none.

import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, chromium } from 'playwright-core'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome']

/** CHROMIUM_PATH, else the first known name on the PATH; null when there is none. */
export function findBrowser(): string | null {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  const candidates = [
    process.env['CHROMIUM_PATH'] ?? '',
    ...NAMES.flatMap((name) => folders.map((folder) => join(folder, name))),
  ]
  return candidates.find((path) => path !== '' && isExecutable(path)) ?? null
}

export function launchBrowser(executablePath: string): Promise<Browser> {
  // Chromium refuses its sandbox to root, and containers have a small /dev/shm.
  const isRoot = process.getuid?.() === 0
  return chromium.launch({ executablePath, args: ['--disable-dev-shm-usage', ...(isRoot ? ['--no-sandbox'] : [])] })
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
