// Comma-separated tables read as a stream: any size in constant memory, LF or CRLF, with or without a last line end, gzip by name.
import { createReadStream } from 'node:fs'
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { traceError } from './trace-error.ts'

/** No known trace has longer lines (a day of Azure Functions 2019 has 1,440 columns); a binary file would be one endless line. */
const MAX_LINE_CHARS = 16 * 1024 * 1024

/** The bytes of a file, decompressed when its name ends in `.gz`. A missing file throws when read. */
export function openFile(file: string): Readable {
  const raw = createReadStream(file)
  if (!file.endsWith('.gz')) return raw
  const unzipped = createGunzip()
  raw.on('error', (error) => unzipped.destroy(error))
  return raw.pipe(unzipped)
}

export interface Line {
  readonly text: string
  /** From 1. */
  readonly number: number
}

/** Lines without their ends; an empty last line is none. */
export async function* readLines(file: string): AsyncGenerator<Line> {
  let rest = ''
  let number = 0
  try {
    for await (const chunk of openFile(file).setEncoding('utf8')) {
      const pieces = (rest + (chunk as string)).split('\n')
      rest = pieces.pop() ?? ''
      if (rest.length > MAX_LINE_CHARS) throw traceError(file, number + 1, '(line)', 'is too long: this is not a text trace')
      for (const piece of pieces) {
        number += 1
        yield { text: piece.endsWith('\r') ? piece.slice(0, -1) : piece, number }
      }
    }
  } catch (error) {
    throw asTraceError(error, file, number + 1)
  }
  if (rest !== '') yield { text: rest.endsWith('\r') ? rest.slice(0, -1) : rest, number: number + 1 }
}

/** A failure of the file system or of gunzip as a trace error; anything else as it is. */
export function asTraceError(error: unknown, file: string, line: number): unknown {
  const isSystem = error instanceof Error && 'code' in error && 'errno' in error
  return isSystem ? traceError(file, line, '(file)', error.message) : error
}

/** One row of a table: fields by column name, with errors that say where. */
export class CsvRow {
  readonly file: string
  readonly line: number
  readonly #columns: ReadonlyMap<string, number>
  readonly #fields: readonly string[]

  constructor(file: string, line: number, columns: ReadonlyMap<string, number>, fields: readonly string[]) {
    this.file = file
    this.line = line
    this.#columns = columns
    this.#fields = fields
  }

  text(column: string): string {
    return this.#fields[this.#columns.get(column) ?? -1] ?? ''
  }

  /** A finite number of at least `min`. */
  number(column: string, min = Number.NEGATIVE_INFINITY): number {
    const text = this.text(column)
    const value = text.trim() === '' ? Number.NaN : Number(text)
    if (!Number.isFinite(value)) throw this.error(column, `is not a number: "${text.slice(0, 40)}"`)
    if (value < min) throw this.error(column, `must be at least ${min}, got ${text}`)
    return value
  }

  /** A whole number of tokens or invocations, 0 or more. */
  count(column: string): number {
    const value = this.number(column, 0)
    if (!Number.isSafeInteger(value)) throw this.error(column, `is not a whole number: ${this.text(column)}`)
    return value
  }

  error(column: string, reason: string): Error {
    return traceError(this.file, this.line, column, reason)
  }
}

/** Rows of a table whose first line names its columns; `required` must be among them. Blank lines are skipped. */
export async function* readCsv(file: string, required: readonly string[]): AsyncGenerator<CsvRow> {
  let columns: ReadonlyMap<string, number> | null = null
  for await (const { text, number } of readLines(file)) {
    if (text === '') continue
    const fields = text.split(',')
    if (columns === null) {
      columns = headerColumns(file, fields, required)
      continue
    }
    if (fields.length !== columns.size) {
      const last = [...columns.keys()][Math.min(fields.length, columns.size) - 1] ?? '(line)'
      throw traceError(file, number, last, `the line has ${fields.length} fields and the header ${columns.size}`)
    }
    yield new CsvRow(file, number, columns, fields)
  }
  if (columns === null) throw traceError(file, 1, '(header)', 'the file is empty')
}

function headerColumns(file: string, fields: readonly string[], required: readonly string[]): ReadonlyMap<string, number> {
  // Excel writes a byte-order mark before the first name.
  const names = fields.map((name) => name.replace(/^\uFEFF/, '').trim())
  const columns = new Map(names.map((name, index) => [name, index]))
  for (const name of required) {
    if (!columns.has(name))
      throw traceError(file, 1, name, `the header lacks this column; it has ${names.slice(0, 12).join(', ')}`)
  }
  return columns
}
