// A bench result with what it takes to read it later: commit, machine, settings. One JSON file a run, under bench/results/.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os'
import { dirname } from 'node:path'

export interface Environment {
  readonly date: string
  /** Short hash, with `-dirty` when tracked files differ from it. */
  readonly commit: string
  readonly node: string
  readonly cpu: string
  readonly numCpus: number
  readonly memoryBytes: number
  /** One-minute load before the run: well above 0 means that others used the machine and the numbers are provisional. */
  readonly loadBefore: number
}

/** Taken before the run, so that `loadBefore` does not count the run itself. */
export function describeEnvironment(): Environment {
  return {
    date: new Date().toISOString(),
    commit: git('describe', '--always', '--dirty', '--exclude=*'),
    node: process.version,
    cpu: cpuName(),
    numCpus: availableParallelism(),
    memoryBytes: totalmem(),
    loadBefore: loadavg()[0] ?? 0,
  }
}

export function writeResult(file: string, result: object): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify(result, roundNumbers, 1)}\n`)
  console.error(`wrote ${file}`)
}

/** Nothing here is known to more than four digits; more make diffs unreadable. */
function roundNumbers(_key: string, value: unknown): unknown {
  if (typeof value !== 'number' || Number.isInteger(value)) return value
  return Number(value.toPrecision(4))
}

function git(...args: string[]): string {
  try {
    return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return 'unknown'
  }
}

/** os.cpus() gives no model on some virtual machines, /proc/cpuinfo does. */
function cpuName(): string {
  const model = cpus()[0]?.model.trim()
  if (model !== undefined && model !== '' && model !== 'unknown') return model
  try {
    return /^model name\s*:\s*(.+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown'
  } catch {
    return 'unknown'
  }
}
