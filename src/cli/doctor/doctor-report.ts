import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, freemem, totalmem } from 'node:os'
import type { Config } from '../../config.ts'
import { formatBytes } from '../byte-size.ts'
import { type BackendCheck, findGpus, type Gpu, probeBackends, type RunProgram } from './backend-probes.ts'
import { checkModel, type ModelCheck } from './model-check.ts'

export interface DoctorReport {
  readonly version: string
  readonly node: { readonly version: string; readonly runs: boolean }
  readonly platform: string
  readonly cpu: { readonly model: string; readonly numCores: number; readonly numThreads: number }
  readonly memory: { readonly totalBytes: number; readonly freeBytes: number }
  readonly backends: readonly BackendCheck[]
  readonly gpus: readonly Gpu[]
  /** Null when no model was named. */
  readonly model: ModelCheck | null
  /** The chosen backend, and the model if one was named, can run here. */
  readonly runs: boolean
}

const MIN_NODE_MAJOR = 20

export function examine(version: string, config: Config | null, run: RunProgram): DoctorReport {
  const gpus = findGpus(run)
  const backends = probeBackends(run, gpus)
  const memory = { totalBytes: memoryLimit(), freeBytes: Math.min(memoryLimit(), availableMemory()) }
  const model = config === null ? null : checkModel(config, memory.freeBytes)
  const wanted = config?.model.backend ?? 'onnx'
  const node = { version: process.version, runs: Number(process.versions.node.split('.')[0]) >= MIN_NODE_MAJOR }
  const backendRuns = backends.find((backend) => backend.name === wanted)?.runs ?? false
  return {
    version,
    node,
    platform: `${process.platform}-${process.arch}`,
    cpu: { model: cpus()[0]?.model ?? 'unknown', numCores: physicalCores(), numThreads: availableParallelism() },
    memory,
    backends,
    gpus,
    model,
    runs: node.runs && backendRuns && (model?.runs ?? true),
  }
}

/** A container's limit where there is one: the machine's memory is then not ours. */
function memoryLimit(): number {
  const constrained = process.constrainedMemory()
  return constrained > 0 && constrained < totalmem() ? constrained : totalmem()
}

/** Linux counts the page cache as used in free memory and not in available memory. */
function availableMemory(): number {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(readOrEmpty('/proc/meminfo'))?.[1]
  return kib === undefined ? freemem() : Number(kib) * 1024
}

/** Pairs of socket and core; hyperthreads share one. Elsewhere than on Linux x64 the threads are counted. */
function physicalCores(): number {
  const cores = new Set<string>()
  for (const processor of readOrEmpty('/proc/cpuinfo').split('\n\n')) {
    const socket = /^physical id\s*: (\d+)/m.exec(processor)?.[1]
    const core = /^core id\s*: (\d+)/m.exec(processor)?.[1]
    if (socket !== undefined && core !== undefined) cores.add(`${socket}/${core}`)
  }
  return Math.min(cores.size || availableParallelism(), availableParallelism())
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

export function formatReport(report: DoctorReport): string {
  const { cpu, memory, node } = report
  const yesNo = (runs: boolean) => (runs ? 'yes' : 'no ')
  const lines = [
    `Lorikeet ${report.version} on ${report.platform}`,
    '',
    `  Node.js   ${yesNo(node.runs)}  ${node.version}${node.runs ? '' : `; ${MIN_NODE_MAJOR} or later is needed`}`,
    `  CPU            ${cpu.model}: ${cpu.numCores} cores, ${cpu.numThreads} threads for this process`,
    `  memory         ${formatBytes(memory.freeBytes)} free of ${formatBytes(memory.totalBytes)}`,
    ...(report.gpus.length === 0 ? ['  GPU            none found'] : report.gpus.map(gpuLine)),
    '',
    'Backends',
    ...report.backends.map(
      ({ name, runs, detail, hint }) => `  ${name.padEnd(9)} ${yesNo(runs)}  ${detail}${hint === null ? '' : `; ${hint}`}`,
    ),
    ...(report.model === null ? ['', 'Name a model to check it too: lorikeet doctor DIR'] : modelLines(report.model)),
    '',
    report.runs ? 'This machine can serve.' : 'This machine cannot serve that: see the lines with "no".',
  ]
  return `${lines.join('\n')}\n`
}

function gpuLine({ name, memoryMib, computeCapability, driverVersion }: Gpu): string {
  return `  GPU            ${name}, ${formatBytes(memoryMib * 2 ** 20)}, compute capability ${computeCapability}, driver ${driverVersion}`
}

function modelLines({ path, runs, problem, facts }: ModelCheck): readonly string[] {
  const lines = ['', `Model ${path}`]
  if (facts !== null) {
    const { numParameters, kvBytesPerToken, kvTokens, maxModelLen } = facts
    lines.push(
      `  weights        ${facts.modelType}, ${numParameters.toLocaleString('en')} parameters in ${facts.dtype}, ${formatBytes(facts.weightBytes)}`,
      `  KV cache       ${formatBytes(kvBytesPerToken)} a token; it would hold ${kvTokens.toLocaleString('en')} tokens in ${formatBytes(kvTokens * kvBytesPerToken)}`,
      `  full length    ${maxModelLen} tokens, ${formatBytes(maxModelLen * kvBytesPerToken)} a request, ${Math.floor(kvTokens / maxModelLen)} at once`,
    )
  }
  lines.push(`  served    ${runs ? 'yes' : 'no '}  ${problem ?? 'config and weight headers are in order'}`)
  return lines
}
