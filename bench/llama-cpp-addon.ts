// llama.cpp through the native addon of node-llama-cpp, an optional dependency of the benches only: it is installed on first use
// into .cache/llama-cpp, package and prebuilt binary alone, no install scripts, so nothing is fetched but two registry packages.
// The addon's own batch calls are used, not the package's session classes: nothing but llama_decode and sampling is timed.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { LorikeetError } from '../src/errors.ts'

export const NODE_LLAMA_CPP_VERSION = '3.22.1'
const INSTALL_DIR = resolve('.cache/llama-cpp')

/** GGML_TYPE_F32 and GGML_TYPE_F16: types of the KV cache. */
export const KV_TYPES = { f32: 0, f16: 1 } as const
export type KvType = keyof typeof KV_TYPES

// The part of the addon's surface that is used, after dist/bindings/AddonTypes.d.ts of the package.

export interface AddonSampler {
  applyConfig(config: { temperature: number }): void
  dispose(): void
}

export interface AddonContext {
  init(): Promise<boolean>
  initBatch(numTokens: number): void
  /** Answers the batch index of each position in `logitPositions`. */
  addToBatch(sequenceId: number, firstPosition: number, tokens: Uint32Array, logitPositions: Uint32Array): Uint32Array
  decodeBatch(): Promise<void>
  sampleToken(logitIndex: number, sampler: AddonSampler): Promise<number>
  disposeSequence(sequenceId: number): void
  setLoras(loras: readonly AddonLora[], scales: readonly number[]): void
  dispose(): Promise<void>
}

export interface AddonContextOptions {
  /** Over all sequences. */
  readonly contextSize: number
  /** Most tokens of one decodeBatch; also llama.cpp's n_ubatch. */
  readonly batchSize: number
  readonly sequences: number
  readonly flashAttention: boolean
  readonly threads: number
  readonly kvCacheKeyType: number
  readonly kvCacheValueType: number
}

export interface AddonModel {
  init(): Promise<boolean>
  loadLora(lora: AddonLora): Promise<void>
  dispose(): Promise<void>
}

export interface AddonLora {
  dispose(): Promise<void>
}

export interface Addon {
  readonly AddonModel: new (path: string, options: { addonExports: Addon; gpuLayers: number; useMmap: boolean }) => AddonModel
  readonly AddonModelLora: new (model: AddonModel, path: string) => AddonLora
  readonly AddonContext: new (model: AddonModel, options: AddonContextOptions) => AddonContext
  readonly AddonSampler: new (model: AddonModel) => AddonSampler
  systemInfo(): string
}

export interface LlamaCpp {
  readonly addon: Addon
  /** llama.cpp's release tag. */
  readonly release: string
  dispose(): Promise<void>
}

interface NodeLlamaCpp {
  getLlama(options: Record<string, unknown>): Promise<{
    readonly _bindings: Addon
    readonly llamaCppRelease: { readonly release: string }
    dispose(): Promise<void>
  }>
}

/** Installs the package where it is missing and loads the CPU build. Throws BACKEND_UNAVAILABLE where there is none. */
export async function loadLlamaCpp(numThreads: number): Promise<LlamaCpp> {
  const entry = join(INSTALL_DIR, 'node_modules/node-llama-cpp/dist/index.js')
  if (!existsSync(entry)) install()
  try {
    const { getLlama } = (await import(pathToFileURL(entry).href)) as NodeLlamaCpp
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      logLevel: 'error',
      maxThreads: numThreads,
    })
    return { addon: llama._bindings, release: llama.llamaCppRelease.release, dispose: () => llama.dispose() }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new LorikeetError('BACKEND_UNAVAILABLE', { backend: 'llama.cpp', reason }, { cause })
  }
}

function install(): void {
  const binary = `@node-llama-cpp/${{ darwin: 'mac', win32: 'win' }[process.platform as string] ?? process.platform}-${process.arch}`
  mkdirSync(INSTALL_DIR, { recursive: true })
  writeFileSync(join(INSTALL_DIR, 'package.json'), '{ "private": true }\n')
  console.error(`installing node-llama-cpp ${NODE_LLAMA_CPP_VERSION} and ${binary} into ${INSTALL_DIR}`)
  // --omit=optional: the optional dependencies are every CUDA and Vulkan build as well, hundreds of megabytes.
  const packages = [`node-llama-cpp@${NODE_LLAMA_CPP_VERSION}`, `${binary}@${NODE_LLAMA_CPP_VERSION}`]
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--save-exact', '--loglevel=error']
  execFileSync('npm', ['install', ...flags, ...packages], {
    cwd: INSTALL_DIR,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true' },
  })
}
