// The files of the console's page, read once: they are few, small, and part of the release.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'

export interface ConsoleAsset {
  readonly body: Buffer
  readonly contentType: string
  /** Quoted, as the header has it. */
  readonly etag: string
}

/** What is not listed is not served: sources lie beside the page when the server runs from them. */
const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const PAGE_FOLDER = new URL('./page/', import.meta.url)

/** By file name. Only these names are ever answered, so that no request reaches the file system. */
export function readConsoleAssets(): ReadonlyMap<string, ConsoleAsset> {
  const assets = new Map<string, ConsoleAsset>()
  for (const name of readdirSync(PAGE_FOLDER)) {
    const contentType = CONTENT_TYPES[extname(name)]
    if (contentType === undefined) continue
    const body = readFileSync(new URL(name, PAGE_FOLDER))
    assets.set(name, { body, contentType, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` })
  }
  return assets
}
