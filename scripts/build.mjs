// Compiles src into dist, the console's page there for browsers, and the load harness into dist/harness. Does nothing when no input changed since the last build, so that `npm start` is quick the second time.

import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const src = join(root, 'src')
const dist = join(root, 'dist')
const stampFile = join(dist, '.build-stamp')
const configs = [
  'tsconfig.json',
  'tsconfig.build.json',
  'tsconfig.console.json',
  'tsconfig.bench.json',
  'package.json',
  'scripts/build.mjs',
].map((name) => join(root, name))

const files = (dir) =>
  existsSync(dir)
    ? readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
        .sort()
    : []

const sources = files(src)
const stamp = [...sources, ...files(join(root, 'bench')).filter((file) => file.endsWith('.ts')), ...configs]
  .map((file) => {
    const { size, mtimeMs } = statSync(file)
    return `${relative(root, file)} ${size} ${mtimeMs}`
  })
  .join('\n')

if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) process.exit(0)

process.stderr.write('building dist\n')
const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
if (!existsSync(tsc)) {
  process.stderr.write('build: node_modules is missing; run `npm ci` first\n')
  process.exit(1)
}
const harness = join(dist, 'harness')
rmSync(harness, { recursive: true, force: true })
for (const project of ['tsconfig.build.json', 'tsconfig.console.json', 'tsconfig.bench.json']) {
  const { status } = spawnSync(process.execPath, [tsc, '-p', join(root, project)], { stdio: 'inherit', cwd: root })
  if (status !== 0) process.exit(status ?? 1)
}

const isSource = (file) => file.endsWith('.ts')
const outputs = new Set([stampFile])
for (const file of sources) {
  const output = join(dist, relative(src, file))
  if (isSource(file)) {
    const js = output.replace(/\.ts$/, '.js')
    outputs.add(js).add(`${js}.map`)
  } else {
    mkdirSync(dirname(output), { recursive: true })
    copyFileSync(file, output)
    outputs.add(output)
  }
}
const isKernel = (file) => file.startsWith(join(dist, 'backend', 'cuda', 'kernels'))
// What a deleted source left behind must not be importable. Kernels come from scripts/build-kernels.mjs.
for (const file of files(dist)) if (!outputs.has(file) && !file.startsWith(harness) && !isKernel(file)) rmSync(file)

const main = join(dist, 'main.js')
if (existsSync(main)) chmodSync(main, 0o755)
writeFileSync(stampFile, stamp)
