// Rebuilds src/server/grpc/generated from proto/, after lint and a check that nothing released was broken: npm run proto.
// With --release the present protos become what later ones are checked against.

import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const proto = join(root, 'proto')
const generated = join(root, 'src/server/grpc/generated')

function buf(...args) {
  const { status, error } = spawnSync(join(root, 'node_modules/.bin/buf'), args, { cwd: proto, stdio: 'inherit' })
  if (error) process.stderr.write(`buf: ${error.message}; run \`npm ci\` first\n`)
  if (status !== 0) process.exit(status ?? 1)
}

buf('lint')
if (process.argv.includes('--release')) buf('build', '--exclude-source-info', '-o', 'released.binpb')
buf('breaking', '--against', 'released.binpb')
rmSync(generated, { recursive: true, force: true })
mkdirSync(generated, { recursive: true })
buf('generate')
buf('build', '--exclude-source-info', '--as-file-descriptor-set', '-o', join(generated, 'descriptors.binpb'))
