// Every Kubernetes object we ship against its schema, and what must agree between them: ports, labels, names, times, files.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { describe, it } from 'node:test'
import { parse, parseAllDocuments } from 'yaml'
import { scanEnv } from '../../src/config/scan-env.ts'
import { findSchemaErrors, type Manifest } from '../support/kubernetes-schema.ts'
import { documentedSeries } from '../support/metric-docs.ts'
import { promqlNames } from '../support/promql.ts'
import { ROOT } from '../support/server-process.ts'

const FOLDER = join(ROOT, 'deploy/kubernetes')
const OVERLAYS = ['demo', 'production']

// biome-ignore lint/suspicious/noExplicitAny: YAML has the shape that the schema tests below make sure of.
type Yaml = any

const readYaml = (path: string): Yaml => parse(readFileSync(join(FOLDER, path), 'utf8'))
const documents = (text: string): readonly Manifest[] => parseAllDocuments(text).map((document) => document.toJS() as Manifest)

const yamlFiles = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.yaml'))
const kustomizations = yamlFiles.filter((path) => basename(path) === 'kustomization.yaml')
const patches = new Set(
  kustomizations.flatMap((path) =>
    (readYaml(path).patches ?? []).flatMap((patch: Yaml) => (patch.path ? [join(dirname(path), patch.path)] : [])),
  ),
)
const objects = yamlFiles
  .filter((path) => !kustomizations.includes(path) && !patches.has(path))
  .flatMap((path) => documents(readFileSync(join(FOLDER, path), 'utf8')))

const kubectl = spawnSync('kubectl', ['kustomize', '--help']).status === 0
const reason = kubectl ? false : 'kubectl is not on the PATH'
if (reason) console.log(`skipped in part: ${reason}`)

function build(overlay: string): readonly Manifest[] {
  const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', join(FOLDER, 'overlays', overlay)], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  assert.equal(status, 0, stderr)
  return documents(stdout)
}

describe('the schema check', () => {
  it('finds fields that do not exist, wrong types and wrong values', async () => {
    const template = { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'x', image: 'y', readinesProbe: {} }] } }
    const errors = await findSchemaErrors([
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'typo' },
        spec: { selector: { matchLabels: { a: 'b' } }, template },
      },
      { apiVersion: 'v1', kind: 'Service', metadata: { name: 'type' }, spec: { ports: [{ port: 'http' }] } },
      {
        apiVersion: 'inference.networking.k8s.io/v1',
        kind: 'InferencePool',
        metadata: { name: 'pool' },
        spec: { targetPorts: [{ number: 8000 }] },
      },
    ])
    assert.ok(
      errors.some((error) => /Deployment typo: .*readinesProbe/.test(error)),
      errors.join('\n'),
    )
    assert.ok(
      errors.some((error) => /Service type: .*(integer|number)/.test(error)),
      errors.join('\n'),
    )
    assert.ok(
      errors.some((error) => /InferencePool pool: .*selector/.test(error)),
      errors.join('\n'),
    )
  })
})

describe('Kubernetes files', () => {
  it('are objects that their schemas accept', async () => {
    assert.ok(objects.length >= 18)
    assert.deepEqual(await findSchemaErrors(objects), [])
  })

  it('name every file, and only files that exist', () => {
    for (const path of kustomizations) {
      const { resources = [], components = [] } = readYaml(path)
      for (const entry of [...resources, ...components]) {
        assert.ok(existsSync(join(FOLDER, dirname(path), entry)), `${path}: ${entry}`)
      }
      const listed = new Set([
        ...resources,
        ...(readYaml(path).patches ?? []).map((patch: Yaml) => patch.path),
        'kustomization.yaml',
      ])
      const generated = (readYaml(path).configMapGenerator ?? []).flatMap((one: Yaml) => one.files ?? [])
      for (const file of generated) listed.add(file.replace(/^.*=/, ''))
      const here = yamlFiles.filter((file) => dirname(file) === dirname(path)).map((file) => basename(file))
      assert.deepEqual(
        here.filter((file) => !listed.has(file)),
        [],
        `${path} leaves files out`,
      )
    }
  })

  it('set only options that the server has', () => {
    const literals: string[] = kustomizations.flatMap((path) =>
      (readYaml(path).configMapGenerator ?? []).flatMap((one: Yaml) => one.literals ?? []),
    )
    assert.ok(literals.length > 8)
    const { containers } = readYaml('base/deployment.yaml').spec.template.spec
    const own = containers[0].env.map((variable: Yaml) => `${variable.name}=1`)
    for (const literal of [...literals, ...own]) {
      const [name = '', value] = literal.split('=')
      assert.doesNotThrow(() => scanEnv({ [name]: value }), literal)
    }
  })

  it('give every pod time for preStop and drain before it is killed', () => {
    const base = readYaml('base/deployment.yaml').spec.template.spec
    const sleep = base.containers[0].lifecycle.preStop.sleep.seconds
    const drainOf = (path: string): number =>
      Number(/LORIKEET_DRAIN_TIMEOUT=(\d+)/.exec(readFileSync(join(FOLDER, path, 'kustomization.yaml'), 'utf8'))?.[1])
    assert.ok(base.terminationGracePeriodSeconds >= sleep + drainOf('base') + 5)
    const gpu = readYaml('overlays/production/gpu.yaml').spec.template.spec
    assert.ok(gpu.terminationGracePeriodSeconds >= sleep + drainOf('overlays/production') + 5)
  })

  it('agree on ports, labels and names', () => {
    const template = readYaml('base/deployment.yaml').spec.template
    const ports = new Map(template.spec.containers[0].ports.map((port: Yaml) => [port.name, port.containerPort]))
    for (const { targetPort, port } of readYaml('base/service.yaml').spec.ports) assert.equal(ports.get(targetPort), port)
    for (const probe of ['startupProbe', 'readinessProbe', 'livenessProbe'])
      assert.deepEqual(template.spec.containers[0][probe].httpGet, { path: '/health', port: 'http' })
    const pool = readYaml('components/inference-gateway/inference-pool.yaml').spec
    assert.deepEqual(pool.targetPorts, [{ number: ports.get('http') }])
    const monitor = readYaml('components/monitoring/pod-monitor.yaml').spec
    assert.ok(ports.has(monitor.podMetricsEndpoints[0].port))
    const disruption = readYaml('base/pod-disruption-budget.yaml').spec
    for (const selector of [
      pool.selector,
      monitor.selector,
      disruption.selector,
      readYaml('base/deployment.yaml').spec.selector,
    ]) {
      for (const [label, value] of Object.entries(selector.matchLabels)) assert.equal(template.metadata.labels[label], value)
    }
    const picker = objects.find(
      (object) => object.kind === 'Service' && object.metadata?.name === pool.endpointPickerRef.name,
    ) as Yaml
    assert.ok(picker.spec.ports.some((port: Yaml) => port.port === pool.endpointPickerRef.port.number))
    const route = readYaml('components/inference-gateway/http-route.yaml').spec
    assert.equal(route.rules[0].backendRefs[0].name, readYaml('components/inference-gateway/inference-pool.yaml').metadata.name)
    assert.equal(route.rules[1].backendRefs[0].name, readYaml('base/service.yaml').metadata.name)
  })

  it('scale on series that /metrics has', () => {
    const known = documentedSeries()
    const { triggers } = readYaml('components/autoscaling/scaled-object.yaml').spec
    for (const { metadata } of triggers) {
      const { series } = promqlNames(metadata.query)
      assert.ok(series.length > 0 && series.every(({ name }) => known.has(name)), metadata.query)
    }
  })

  it('weigh only plugins that the picker is told of, the adapter first', async () => {
    const config = readYaml('components/inference-gateway/endpoint-picker-config.yaml')
    assert.deepEqual(await findSchemaErrors([config]), [])
    const types = new Set(config.plugins.map((plugin: Yaml) => plugin.type))
    const { plugins } = config.schedulingProfiles[0]
    assert.ok(plugins.every((plugin: Yaml) => types.has(plugin.pluginRef)))
    const heaviest = plugins.reduce((a: Yaml, b: Yaml) => (b.weight > a.weight ? b : a))
    assert.equal(heaviest.pluginRef, 'lora-affinity-scorer')
  })
})

describe('kustomize', { skip: reason }, () => {
  for (const overlay of OVERLAYS) {
    it(`builds ${overlay}: objects that their schemas accept, no placeholder image, every reference met`, async () => {
      const built = build(overlay)
      assert.deepEqual(await findSchemaErrors(built), [])
      const has = (kind: string, name: string): boolean =>
        built.some((object) => object.kind === kind && object.metadata?.name === name)
      for (const deployment of built.filter((object) => object.kind === 'Deployment') as Yaml[]) {
        const { containers, volumes, serviceAccountName } = deployment.spec.template.spec
        assert.ok(has('ServiceAccount', serviceAccountName))
        for (const { image, envFrom = [] } of containers) {
          assert.match(image, /^[\w.-]+\.[\w.-]+\/.+:[\w.-]+$/, 'a registry and a tag')
          for (const { configMapRef } of envFrom) assert.ok(has('ConfigMap', configMapRef.name))
        }
        for (const { configMap, persistentVolumeClaim } of volumes) {
          if (configMap) assert.ok(has('ConfigMap', configMap.name))
          if (persistentVolumeClaim) assert.ok(has('PersistentVolumeClaim', persistentVolumeClaim.claimName))
        }
      }
    })
  }

  it('puts production together', () => {
    const built = build('production')
    const deployment = built.find((object) => object.kind === 'Deployment' && object.metadata?.name === 'lorikeet') as Yaml
    assert.equal(deployment.spec.replicas, undefined, 'the autoscaler decides')
    const [server] = deployment.spec.template.spec.containers
    assert.equal(server.resources.limits['nvidia.com/gpu'], '1')
    assert.match(server.image, /-cuda$/)
    assert.deepEqual(server.volumeMounts.map((mount: Yaml) => mount.mountPath).sort(), ['/adapters', '/model', '/tmp'])
    const options = built.find(
      (object) => object.kind === 'ConfigMap' && object.metadata?.name?.startsWith('lorikeet-options'),
    ) as Yaml
    assert.equal(options.data.LORIKEET_ADAPTER_DIR, '/adapters')
    assert.equal(options.data.LORIKEET_DRAIN_TIMEOUT, '120')
    const boards = built.find((object) => object.metadata?.name === 'lorikeet-dashboards') as Yaml
    assert.deepEqual(Object.keys(boards.data), ['adapters.json', 'engine.json', 'overview.json'])
  })

  it('has an overlay here for each one that is tested', () => {
    assert.deepEqual(readdirSync(join(FOLDER, 'overlays')).sort(), OVERLAYS, relative(ROOT, FOLDER))
  })
})
