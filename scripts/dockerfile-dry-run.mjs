// Runs the Dockerfile without a container engine: every stage in an empty folder of its own, then the server of the default stage,
// its health check and its end on SIGTERM. What it cannot show: what base images hold beside node, so nvcc is not run.
// --installed: `npm ci` of all packages has just run in this checkout and is not run again, as in .ci/run.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DockerfileParser } from 'dockerfile-ast'

const CONTEXT = dirname(dirname(fileURLToPath(import.meta.url)))
const HEALTH_TIMEOUT_MS = 60_000
const HEALTH_INTERVAL_MS = 500
const IMAGE_NODE = 'usr/local/bin/node'
const INSTALL_ALL = 'npm ci --no-audit --no-fund'
const isInstalled = process.argv.includes('--installed')

const fail = (message) => {
  throw new Error(message)
}

function run(command, args, options) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26, ...options })
  if (status !== 0) fail(`${[command, ...args].join(' ')} ended with ${status ?? error?.message}\n${stdout}${stderr}`)
}

/** Names that .dockerignore lets into the context. Only the form that our file has is read: `*`, then `!path`. */
function contextPaths() {
  const lines = readFileSync(join(CONTEXT, '.dockerignore'), 'utf8').split('\n')
  const patterns = lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'))
  const [first, ...allowed] = patterns
  const isPlain = (pattern) => pattern.startsWith('!') && !/[*?[\]]/.test(pattern)
  if (first !== '*' || !allowed.every(isPlain)) fail('.dockerignore: this script reads only `*` followed by `!path` lines')
  return allowed.map((pattern) => pattern.slice(1)).filter((path) => existsSync(join(CONTEXT, path)))
}

/** Stages of the file: name, what they build on, and their instructions. */
function readStages() {
  const instructions = DockerfileParser.parse(readFileSync(join(CONTEXT, 'Dockerfile'), 'utf8')).getInstructions()
  const defaults = new Map()
  const stages = []
  for (const instruction of instructions) {
    const keyword = instruction.getKeyword()
    if (keyword === 'ARG' && stages.length === 0) {
      const property = instruction.getProperty()
      defaults.set(property.getName(), property.getValue())
    } else if (keyword === 'FROM') {
      const base = instruction
        .getImage()
        .replace(/\$\{(\w+)\}/g, (_, name) => defaults.get(name) ?? fail(`no value for ${name}`))
      stages.push({ name: instruction.getBuildStage() ?? String(stages.length), base, instructions: [] })
    } else {
      stages.at(-1)?.instructions.push(instruction)
    }
  }
  return stages
}

/** A folder that stands for the root of a stage, and the settings that images carry. */
class Stage {
  constructor(root, parent) {
    this.root = root
    this.workdir = parent?.workdir ?? '/'
    this.env = { ...parent?.env }
    this.args = {}
    this.user = parent?.user ?? null
    this.entrypoint = parent?.entrypoint ?? []
    this.cmd = parent?.cmd ?? []
    this.healthCheck = parent?.healthCheck ?? null
    /** The base image brings tools that this machine need not have. */
    this.needsTools = parent?.needsTools ?? false
    this.skipped = []
  }

  /** A path of the image as a path of this machine. */
  at(path) {
    return join(this.root, resolve(this.workdir, path))
  }

  /** Settings of a process in this stage; paths in its variables lie below the stage's root. */
  processOptions(extra = {}) {
    const ids = this.user !== null && process.getuid?.() === 0 ? this.user.split(':').map(Number) : null
    const env = Object.entries(this.env).map(([name, value]) => [name, value.replace(/^(?=\/)/, this.root)])
    const path = [dirname(this.at(`/${IMAGE_NODE}`)), process.env.PATH].join(':')
    return {
      cwd: this.at('.'),
      env: { PATH: path, ...Object.fromEntries(env), ...extra },
      ...(ids === null ? {} : { uid: ids[0], gid: ids[1] }),
    }
  }
}

const words = (instruction) => instruction.getArguments().map((argument) => argument.getValue())
const execForm = (instruction) => instruction.getJSONStrings().map((string) => string.getJSONValue())

function copy(stage, instruction, stages) {
  const from = instruction
    .getFlags()
    .find((flag) => flag.getName() === 'from')
    ?.getValue()
  const paths = words(instruction)
  const [sources, target] = [paths.slice(0, -1), paths.at(-1)]
  const isFolder = target.endsWith('/')
  for (const source of sources) {
    if (from !== undefined && stages.get(from).skipped.length > 0 && !existsSync(stages.get(from).at(source))) {
      console.log(`  COPY --from=${from} ${source}: not there, because RUN was skipped`)
      continue
    }
    if (from === undefined && source === '.') {
      for (const path of contextPaths()) place(join(CONTEXT, path), join(stage.at(target), path), false)
      continue
    }
    if (from === undefined && !contextPaths().some((path) => source === path || source.startsWith(`${path}/`)))
      fail(`COPY ${source}: .dockerignore keeps it out of the context`)
    const origin = from === undefined ? join(CONTEXT, source) : stages.get(from).at(source)
    place(origin, stage.at(target), isFolder)
  }
}

/** A folder's content goes into the target; a file becomes the target, or goes into it. */
function place(origin, target, isFolder) {
  if (!existsSync(origin)) fail(`COPY: ${origin} does not exist`)
  const destination = isFolder && statSync(origin).isFile() ? join(target, basename(origin)) : target
  cpSync(origin, destination, { recursive: true, verbatimSymlinks: true })
}

const HANDLERS = {
  WORKDIR: (stage, instruction) => {
    stage.workdir = resolve(stage.workdir, words(instruction)[0])
    mkdirSync(stage.at('.'), { recursive: true })
  },
  ARG: (stage, instruction) => {
    const property = instruction.getProperty()
    stage.args[property.getName()] = property.getValue() ?? ''
  },
  ENV: (stage, instruction) => {
    for (const property of instruction.getProperties()) {
      const fill = (_, name) => stage.args[name] ?? stage.env[name] ?? fail(`ENV ${property.getName()}: no value for ${name}`)
      stage.env[property.getName()] = property.getValue().replace(/\$\{(\w+)\}/g, fill)
    }
  },
  COPY: copy,
  RUN: (stage, instruction) => {
    const command = instruction.getRawArgumentsContent().replace(/\\\n/g, ' ')
    if (/(^|\s)\/(?!dev\/null)/.test(command)) fail(`RUN ${command}: absolute paths would reach this machine`)
    if (isInstalled && command === INSTALL_ALL) {
      symlinkSync(join(CONTEXT, 'node_modules'), stage.at('node_modules'))
      return
    }
    if (stage.needsTools) {
      stage.skipped.push(command)
      console.log(`  RUN ${command}: skipped, it needs the tools of its base image`)
      return
    }
    const options = stage.processOptions()
    // npm reaches its registry as this machine is set up to: by proxy, own authorities, a cache at home.
    const { NODE_ENV: _, ...machine } = process.env
    run('/bin/sh', ['-c', command], { ...options, env: { ...machine, ...options.env } })
  },
  USER: (stage, instruction) => {
    stage.user = words(instruction)[0]
    if (!/^[1-9]\d*:[1-9]\d*$/.test(stage.user)) fail(`USER ${stage.user} must be two numbers, not of root`)
  },
  ENTRYPOINT: (stage, instruction) => {
    stage.entrypoint = execForm(instruction)
  },
  CMD: (stage, instruction) => {
    stage.cmd = execForm(instruction)
  },
  HEALTHCHECK: (stage, instruction) => {
    const text = instruction.getRawArgumentsContent()
    stage.healthCheck = JSON.parse(text.slice(text.indexOf('[')))
  },
  EXPOSE: () => {},
  STOPSIGNAL: () => {},
}

function buildAll(folder) {
  const stages = new Map()
  for (const { name, base, instructions } of readStages()) {
    const started = performance.now()
    const parent = stages.get(base)
    const stage = new Stage(join(folder, name), parent)
    if (parent !== undefined) cpSync(parent.root, stage.root, { recursive: true, verbatimSymlinks: true })
    else {
      mkdirSync(stage.root)
      stage.needsTools = !base.startsWith('node:')
    }
    // The one thing that we take from a base image.
    if (base.startsWith('node:')) place(process.execPath, join(stage.root, IMAGE_NODE), false)
    for (const instruction of instructions) {
      const keyword = instruction.getKeyword()
      const handle = HANDLERS[keyword] ?? fail(`this script does not know ${keyword}`)
      handle(stage, instruction, stages)
    }
    stages.set(name, stage)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(`${name}: from ${base}, ${instructions.length} instructions, ${megabytes(stage.root)} MB added, ${seconds} s`)
  }
  return stages
}

const megabytes = (path) => {
  const { stdout } = spawnSync('du', ['-sm', path], { encoding: 'utf8' })
  return Number(stdout.split('\t')[0])
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return String(port)
}

/** Starts the stage as `docker run` would, waits until its health check passes, ends it. */
async function serve(stage) {
  const extra = { LORIKEET_HOST: '127.0.0.1', LORIKEET_PORT: await freePort(), LORIKEET_GRPC: 'false' }
  const options = stage.processOptions(extra)
  const [command, ...args] = [...stage.entrypoint, ...stage.cmd]
  const server = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [server.stdout, server.stderr]) stream.on('data', (chunk) => (output += chunk))
  const ended = once(server, 'exit')
  try {
    const [check, ...checkArgs] = stage.healthCheck
    const deadline = performance.now() + HEALTH_TIMEOUT_MS
    while (spawnSync(check, checkArgs, options).status !== 0) {
      if (server.exitCode !== null || performance.now() > deadline) fail(`the server did not become healthy\n${output}`)
      await new Promise((wake) => setTimeout(wake, HEALTH_INTERVAL_MS))
    }
    const answer = await fetch(`http://127.0.0.1:${extra.LORIKEET_PORT}/v1/models`)
    const models = (await answer.json()).data.map((model) => model.id.replace(stage.root, ''))
    console.log(`healthy, serves ${models.length} models: ${models.join(', ')}`)
  } finally {
    server.kill('SIGTERM')
  }
  const [status] = await ended
  if (status !== 0) fail(`the server ended with ${status} after SIGTERM\n${output}`)
  console.log('ended with 0 after SIGTERM')
}

const folder = mkdtempSync(join(tmpdir(), 'lorikeet-dockerfile-'))
try {
  // Stages run as another user than the one who owns this folder.
  chmodSync(folder, 0o755)
  const stages = buildAll(folder)
  const image = [...stages.values()].at(-1)
  run('node', ['dist/main.js', 'version'], stages.get('cuda').processOptions())
  // The load generator of docker-compose.yml is the same image.
  run('node', ['dist/main.js', 'bench', 'presets'], image.processOptions())
  await serve(image)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
