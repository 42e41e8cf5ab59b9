// Packs one tarball that runs on a Linux host of this machine's architecture with nothing else installed: npm run bundle.
//
//   lorikeet-VERSION-linux-x64/bin/lorikeet    launcher
//                              lib/node        Node.js, stripped
//                              dist/           compiled server and CUDA kernels
//                              node_modules/   production dependencies, this platform's binaries only
//
// Reads what is built and installed here and nothing from a network. Run `npm ci` and `npm run build:kernels` first;
// --without-kernels packs a server whose cuda backend says that it has none.

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const platform = `${process.platform}-${process.arch}`
const name = `lorikeet-${version}-${platform}`
const { values: options } = parseArgs({
  options: {
    'without-kernels': { type: 'boolean', default: false },
    out: { type: 'string', default: join(root, `${name}.tar.xz`) },
  },
})

/** Folders no running server reads. */
const UNUSED = /(^|\/)(docs?|test|tests|benchmarks?|examples?|typings)$|\.(map|d\.ts|d\.mts|d\.cts|md|markdown|cu|cuh|stamp)$/i

const LAUNCHER = `#!/bin/sh
# Follows links, so that the launcher may be linked into a folder of the PATH.
self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
home=$(cd "$(dirname "$self")/.." && pwd)
exec "$home/lib/node" "$home/dist/main.js" "$@"
`

function fail(reason) {
  process.stderr.write(`bundle: ${reason}\n`)
  process.exit(1)
}

function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status !== 0) fail(`${command} ${args[0]} failed${error === undefined ? '' : `: ${error.message}`}`)
}

/** Installed packages of the lock file that production needs: no development ones, optional ones only for this platform. */
function productionPackages() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  return Object.entries(packages)
    .filter(([path, entry]) => path !== '' && !entry.dev && !entry.devOptional)
    .filter(([, entry]) => !entry.optional || (entry.os?.includes(process.platform) && entry.cpu?.includes(process.arch)))
    .map(([path]) => path)
    .filter((path) => existsSync(join(root, path)))
}

/** Binaries of other platforms are most of what these two packages weigh. */
function isForeign(path) {
  const onnx = /onnxruntime-node\/bin\/napi-v\d+\/([^/]+)(?:\/([^/]+))?$/.exec(path)
  if (onnx !== null) return onnx[1] !== process.platform || (onnx[2] !== undefined && onnx[2] !== process.arch)
  return /\/koffi\/vendor$/.test(path) || /\/@koromix\/koffi-linux-[^/]+\/musl_/.test(path)
}

function copy(from, to) {
  cpSync(join(root, from), to, {
    recursive: true,
    filter: (source) =>
      !isForeign(source) && !(source.includes('node_modules') && source.endsWith('/.bin')) && !isUnused(source),
  })
}

/** A package may keep code in a folder of such a name: only those without code are left out. */
function isUnused(source) {
  if (!UNUSED.test(source)) return false
  if (!statSync(source).isDirectory()) return true
  return !readdirSync(source, { recursive: true }).some((file) => /\.(c|m)?js$|\.json$|\.node$|\.proto$/.test(String(file)))
}

const kernels = join(root, 'dist', 'backend', 'cuda', 'kernels')
run(process.execPath, [join(root, 'scripts', 'build.mjs')])
const hasKernels = existsSync(kernels) && readdirSync(kernels).some((file) => file.endsWith('.fatbin'))
if (!hasKernels && !options['without-kernels'])
  fail('the CUDA kernels are not built; run npm run build:kernels, or pass --without-kernels')

const staging = mkdtempSync(join(tmpdir(), 'lorikeet-bundle-'))
try {
  const home = join(staging, name)
  for (const folder of ['bin', 'lib']) mkdirSync(join(home, folder), { recursive: true })
  writeFileSync(join(home, 'bin', 'lorikeet'), LAUNCHER)
  chmodSync(join(home, 'bin', 'lorikeet'), 0o755)
  cpSync(process.execPath, join(home, 'lib', 'node'), { dereference: true })
  const { status } = spawnSync('strip', [join(home, 'lib', 'node')], { stdio: 'ignore' })
  if (status !== 0) process.stderr.write('bundle: no strip here (package binutils): node keeps its symbols\n')
  copy('dist', join(home, 'dist'))
  rmSync(join(home, 'dist', 'harness'), { recursive: true, force: true })
  rmSync(join(home, 'dist', '.build-stamp'), { force: true })
  for (const path of ['package.json', 'LICENSE', 'README.md', 'demo'])
    cpSync(join(root, path), join(home, path), { recursive: true })
  for (const path of productionPackages()) copy(path, join(home, path))
  run('tar', ['-C', staging, '-cJf', options.out, name], { XZ_OPT: '-6 -T0' })
} finally {
  rmSync(staging, { recursive: true, force: true })
}
process.stderr.write(`bundle: ${options.out}, ${(statSync(options.out).size / 2 ** 20).toFixed(1)} MiB\n`)
