// Azure Functions trace 2019 (Serverless in the Wild, ATC'20): a row a function, a column a minute, a cell the invocations of it.
import { createRandom, type Random } from '../random/random.ts'
import { readCsv, readLines } from './csv-table.ts'
import { traceError } from './trace-error.ts'
import { type ReaderOptions, type TraceRecord, traceRecord } from './trace-record.ts'

/** Minutes held at a time: the table is minute-major in time and function-major on disk, so it is read once per block. */
const BLOCK_MINUTES = 60
const MINUTE_S = 60

/** Counts of one function over the minutes of a block. */
interface FunctionCounts {
  readonly key: string
  readonly counts: Uint32Array // [numMinutes]
}

/**
 * Invocations in order of time; the key is the function's hash. Inside a minute they are spread evenly from a random phase
 * (`uniform`), or as a Poisson process given the count (`poisson`: independent uniform instants). Memory is bounded by
 * the number of functions times one hour, whatever the length of the trace.
 */
export async function* readAzureFunctions2019(file: string, options: ReaderOptions): AsyncGenerator<TraceRecord> {
  const random = createRandom(options.seed, 'functions-2019')
  const minutes = await minuteColumns(file)
  for (let start = 0; start < minutes.length; start += BLOCK_MINUTES) {
    const block = minutes.slice(start, start + BLOCK_MINUTES)
    const functions = await readBlock(file, block)
    for (let minute = 0; minute < block.length; minute += 1) {
      const startS = (start + minute) * MINUTE_S
      for (const [offsetS, key] of minuteInvocations(functions, minute, options.minuteArrivals, random)) {
        yield traceRecord({ timeS: startS + offsetS, key })
      }
    }
  }
}

async function minuteColumns(file: string): Promise<readonly string[]> {
  for await (const { text } of readLines(file)) {
    const names = text.split(',').filter((name) => /^\d+$/.test(name))
    if (names.length > 0) return names
    throw traceError(file, 1, '(header)', 'has no column named by a minute number')
  }
  throw traceError(file, 1, '(header)', 'the file is empty')
}

async function readBlock(file: string, minutes: readonly string[]): Promise<readonly FunctionCounts[]> {
  const functions: FunctionCounts[] = []
  for await (const row of readCsv(file, ['HashOwner', 'HashApp', 'HashFunction'])) {
    const counts = Uint32Array.from(minutes, (minute) => row.count(minute))
    if (counts.some((count) => count > 0)) functions.push({ key: row.text('HashFunction'), counts })
  }
  return functions
}

function minuteInvocations(
  functions: readonly FunctionCounts[],
  minute: number,
  spread: ReaderOptions['minuteArrivals'],
  random: Random,
): readonly (readonly [offsetS: number, key: string])[] {
  const invocations: [number, string][] = []
  for (const { key, counts } of functions) {
    const count = counts[minute] as number
    const phase = count > 0 ? random.next() : 0
    for (let index = 0; index < count; index += 1) {
      const place = spread === 'uniform' ? (index + phase) / count : random.next()
      invocations.push([place * MINUTE_S, key])
    }
  }
  return invocations.sort((a, b) => a[0] - b[0])
}
