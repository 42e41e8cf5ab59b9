import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { extname } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { BackendName } from '../../config.ts'

export interface BackendCheck {
  readonly name: BackendName
  readonly runs: boolean
  /** What was found, or why it cannot run. */
  readonly detail: string
  /** What to do about it; null when there is nothing to do. */
  readonly hint: string | null
}

export interface Gpu {
  readonly name: string
  readonly memoryMib: number
  readonly computeCapability: string
  readonly driverVersion: string
}

/** Runs a program to its end; null when there is none of that name or it failed. */
export type RunProgram = (command: string, args: readonly string[]) => { readonly ok: boolean; readonly output: string } | null

// Loading a native library or asking a hung driver must not hang the doctor.
const PROBE_TIMEOUT_MS = 15_000

export const runProgram: RunProgram = (command, args) => {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', timeout: PROBE_TIMEOUT_MS })
  if (error !== undefined && 'code' in error && error.code === 'ENOENT') return null
  return { ok: status === 0, output: (status === 0 ? stdout : stderr || stdout || (error?.message ?? '')).trim() }
}

export function probeBackends(run: RunProgram, gpus: readonly Gpu[]): readonly BackendCheck[] {
  return [
    probeOnnx(run),
    { name: 'reference', runs: true, detail: 'plain TypeScript, slow: the definition of correct logits', hint: null },
    { name: 'null', runs: true, detail: 'no maths: for tests of scheduling and HTTP', hint: null },
    probeCuda(run, gpus),
  ]
}

/** In a process of its own: a library built for another CPU or libc ends the process that loads it. */
function probeOnnx(run: RunProgram): BackendCheck {
  const name = 'onnx'
  let entry: string
  try {
    entry = pathToFileURL(createRequire(import.meta.url).resolve('onnxruntime-node')).href
  } catch {
    return { name, runs: false, detail: 'onnxruntime-node is not installed', hint: 'run npm ci' }
  }
  const script = `import(${JSON.stringify(entry)}).then(({ env, listSupportedBackends }) =>
    console.log(env.versions.node + ' ' + listSupportedBackends().filter((b) => b.bundled).map((b) => b.name).join(',')))`
  const result = run(process.execPath, ['-e', script])
  if (result?.ok) {
    const [version, providers] = result.output.split(' ')
    return { name, runs: true, detail: `onnxruntime-node ${version}, CPU (providers in the package: ${providers})`, hint: null }
  }
  const reason = result?.output.split('\n').find((line) => line.includes('Error')) ?? 'it ended without a message'
  const platform = `${process.platform}-${process.arch}`
  return {
    name,
    runs: false,
    detail: `onnxruntime-node does not load on ${platform}: ${reason.trim()}`,
    hint: 'it needs linux-x64, linux-arm64 (glibc), darwin-arm64 or win32; run npm ci on this machine',
  }
}

/** In a process of its own, as it would be used: driver, kernels, cuBLASLt, free memory. */
function probeCuda(run: RunProgram, gpus: readonly Gpu[]): BackendCheck {
  const name = 'cuda'
  if (gpus.length === 0) {
    return { name, runs: false, detail: 'no NVIDIA driver answers (nvidia-smi)', hint: 'the onnx backend needs no GPU' }
  }
  // Compiled, the probe is JavaScript; from sources it needs the same loader as this process.
  const probe = fileURLToPath(new URL(`../../backend/cuda/probe${extname(import.meta.url)}`, import.meta.url))
  const result = run(process.execPath, [...process.execArgv, probe])
  const answer = result?.ok ? parseProbe(result.output) : null
  if (answer !== null) return { name, ...answer, hint: null }
  const reason = result?.output.split('\n').at(-1) ?? 'it ended without a message'
  return { name, runs: false, detail: `the GPU could not be asked: ${reason.trim()}`, hint: 'use --backend onnx' }
}

function parseProbe(output: string): { readonly runs: boolean; readonly detail: string } | null {
  try {
    const { runs, detail } = JSON.parse(output) as { runs: unknown; detail: unknown }
    return typeof runs === 'boolean' && typeof detail === 'string' ? { runs, detail } : null
  } catch {
    return null
  }
}

export function findGpus(run: RunProgram): readonly Gpu[] {
  const query = ['--query-gpu=name,memory.total,compute_cap,driver_version', '--format=csv,noheader,nounits']
  const result = run('nvidia-smi', query)
  if (!result?.ok || result.output === '') return []
  return result.output.split('\n').map((line) => {
    const [name = '', memory = '', computeCapability = '', driverVersion = ''] = line.split(',').map((cell) => cell.trim())
    return { name, memoryMib: Number(memory), computeCapability, driverVersion }
  })
}
