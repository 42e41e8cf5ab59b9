// Compiles every CUDA kernel into one fat binary a file, beside the compiled backend: npm run build:kernels.
// Needs nvcc 12.9 or later and no GPU. --arch sm_90a builds for one architecture only; with --optional a machine without nvcc
// is told so and the run succeeds, since only --backend cuda needs the kernels.

import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** A100; L4, L40 and RTX 40; H100 and H200 (the `a` opens Hopper's own instructions); B200. */
const ARCHITECTURES = ['sm_80', 'sm_89', 'sm_90a', 'sm_100']

/** Text that the driver compiles on any GPU not in the list: everything after Ampere takes it. */
const PTX_ARCHITECTURE = 'compute_80'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const sources = join(root, 'src', 'backend', 'cuda', 'kernels')
const target = join(root, 'dist', 'backend', 'cuda', 'kernels')

const { values: options } = parseArgs({
  options: { optional: { type: 'boolean', default: false }, arch: { type: 'string' }, out: { type: 'string' } },
})
const out = options.out ?? target

/** NVCC, the PATH, or where NVIDIA's packages put it; null when there is none. */
function findCompiler() {
  const home = process.env.CUDA_HOME ?? '/usr/local/cuda'
  const folders = [...(process.env.PATH ?? '').split(delimiter), join(home, 'bin')]
  const candidates = [process.env.NVCC, ...folders.map((folder) => join(folder, 'nvcc'))]
  return candidates.find((path) => path !== undefined && path !== '' && existsSync(path)) ?? null
}

function generateCode() {
  const code = (architecture) => ['-gencode', `arch=${architecture.replace('sm_', 'compute_')},code=${architecture}`]
  if (options.arch !== undefined) return code(options.arch)
  return [...ARCHITECTURES.flatMap(code), '-gencode', `arch=${PTX_ARCHITECTURE},code=${PTX_ARCHITECTURE}`]
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (text) => (output += text))
    child.stderr.on('data', (text) => (output += text))
    child.on('close', (status) => resolve({ status, output }))
  })
}

const compiler = findCompiler()
if (compiler === null) {
  process.stderr.write(
    'build:kernels: no nvcc found (looked at NVCC, PATH and CUDA_HOME): the CUDA kernels are not built, and --backend cuda will not run. Install the CUDA toolkit 12.9 or later; no GPU is needed to compile.\n',
  )
  process.exit(options.optional ? 0 : 1)
}

const headers = readdirSync(sources).filter((name) => name.endsWith('.cuh'))
const kernels = readdirSync(sources).filter((name) => name.endsWith('.cu'))
const version = spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout
const newest = Math.max(...headers.map((name) => statSync(join(sources, name)).mtimeMs))
const flags = ['-O3', '-std=c++17', '-fatbin', ...generateCode()]
mkdirSync(out, { recursive: true })

/** A kernel whose sources, flags and compiler are those of the last build is left alone. */
function isFresh(name) {
  const stamp = join(out, `${name}.stamp`)
  if (!existsSync(stamp) || !existsSync(join(out, name.replace(/\.cu$/, '.fatbin')))) return false
  return readFileSync(stamp, 'utf8') === stampOf(name)
}
function stampOf(name) {
  return [version, ...flags, newest, statSync(join(sources, name)).mtimeMs].join('\n')
}

const waiting = kernels.filter((name) => !isFresh(name))
let hasFailed = false
async function work() {
  for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
    const started = performance.now()
    const output = join(out, name.replace(/\.cu$/, '.fatbin'))
    const result = await run(compiler, [...flags, '-o', output, join(sources, name)])
    process.stderr.write(result.output)
    if (result.status !== 0) {
      hasFailed = true
      rmSync(output, { force: true })
      continue
    }
    writeFileSync(join(out, `${name}.stamp`), stampOf(name))
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    process.stderr.write(`build:kernels: ${name} ${seconds} s, ${(statSync(output).size / 1024).toFixed(0)} KiB\n`)
  }
}
await Promise.all(Array.from({ length: Math.min(availableParallelism(), waiting.length) }, work))
process.exit(hasFailed ? 1 : 0)
