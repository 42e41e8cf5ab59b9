// Request bodies: an object of JSON, or a 400 that says why not.

import { isJsonObject, type JsonObject } from '../../core/json.ts'
import { LorikeetError } from '../../errors.ts'

/** Throws BODY_INVALID. */
export function readJsonBody(body: unknown, contentType: string | undefined): JsonObject {
  const mediaType = contentType?.split(';', 1)[0]?.trim().toLowerCase()
  if (mediaType !== 'application/json') {
    throw invalid(
      `Content-Type must be application/json, not ${mediaType === undefined ? 'absent' : JSON.stringify(mediaType)}`,
    )
  }
  const parsed = parse(Buffer.isBuffer(body) ? body.toString('utf8') : '')
  if (!isJsonObject(parsed)) throw invalid('the body must be a JSON object')
  return parsed
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error)
    throw invalid(`the body is not JSON: ${detail}`)
  }
}

function invalid(reason: string): LorikeetError {
  return new LorikeetError('BODY_INVALID', { reason })
}
