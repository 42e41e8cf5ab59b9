// Kubernetes objects against schemas: validators of the kubernetes-models packages for values, their types for fields that do not exist,
// and small schemas of our own for kinds that no package has.

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv, type JSONSchemaType } from 'ajv'
import { ROOT } from './server-process.ts'

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata?: { readonly name?: string; readonly labels?: Readonly<Record<string, string>> }
  readonly [field: string]: unknown
}

interface Model {
  validate(): void
}

/** npm package of each API group; the path inside is group, version and kind. */
const PACKAGES: Readonly<Record<string, string>> = {
  'gateway.networking.k8s.io': '@kubernetes-models/gateway-api',
  'keda.sh': '@kubernetes-models/keda',
  'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
}

const isNumberOf = {
  type: 'object',
  required: ['number'],
  additionalProperties: false,
  properties: { number: { type: 'integer', minimum: 1, maximum: 65535 } },
}
const isName = { type: 'string', minLength: 1, maxLength: 253 }
const object = (required: readonly string[], properties: object): object => ({
  type: 'object',
  required,
  properties,
  additionalProperties: false,
})
const whole = (spec: object): object =>
  object(['apiVersion', 'kind', 'metadata', 'spec'], { apiVersion: isName, kind: isName, metadata: { type: 'object' }, spec })
const pluginParts = { type: isName, name: isName, parameters: { type: 'object' } }

/**
 * Facts read from their projects: the InferencePool CRD of kubernetes-sigs/gateway-api-inference-extension (v1), the picker's
 * EndpointPickerConfig (v1alpha1, release 1.5.0), and of Istio's DestinationRule what we use.
 */
const FACTS: Readonly<Record<string, object>> = {
  'inference.networking.k8s.io/v1 InferencePool': whole(
    object(['selector', 'targetPorts'], {
      selector: object(['matchLabels'], { matchLabels: { type: 'object', minProperties: 1, maxProperties: 64 } }),
      targetPorts: { type: 'array', minItems: 1, maxItems: 8, uniqueItems: true, items: isNumberOf },
      appProtocol: { enum: ['http', 'kubernetes.io/h2c'] },
      endpointPickerRef: object(['name', 'port'], {
        group: { type: 'string' },
        kind: isName,
        name: isName,
        port: isNumberOf,
        failureMode: { enum: ['FailOpen', 'FailClose'] },
      }),
    }),
  ),
  'inference.networking.x-k8s.io/v1alpha1 EndpointPickerConfig': object(
    ['apiVersion', 'kind', 'plugins', 'schedulingProfiles'],
    {
      apiVersion: isName,
      kind: isName,
      plugins: { type: 'array', minItems: 1, items: object(['type'], pluginParts) },
      schedulingProfiles: {
        type: 'array',
        minItems: 1,
        items: object(['name', 'plugins'], {
          name: isName,
          plugins: {
            type: 'array',
            items: object(['pluginRef'], { pluginRef: isName, weight: { type: 'number', minimum: 0 } }),
          },
        }),
      },
    },
  ),
  'networking.istio.io/v1 DestinationRule': whole(
    object(['host', 'trafficPolicy'], {
      host: isName,
      trafficPolicy: object(['tls'], {
        tls: object(['mode'], {
          mode: { enum: ['DISABLE', 'SIMPLE', 'MUTUAL', 'ISTIO_MUTUAL'] },
          insecureSkipVerify: { type: 'boolean' },
        }),
      }),
    }),
  ),
}

/** The module that holds the kind's class and its `I…` type. */
function moduleOf({ apiVersion, kind }: Manifest): string {
  const group = apiVersion.split('/')[0] ?? ''
  return `${PACKAGES[group] ?? 'kubernetes-models'}/${apiVersion}/${kind}`
}

const factsOf = ({ apiVersion, kind }: Manifest): object | undefined => FACTS[`${apiVersion} ${kind}`]
const nameOf = ({ kind, metadata }: Manifest): string => `${kind} ${metadata?.name ?? ''}`.trim()

/** What is wrong with the objects, one line each. */
export async function findSchemaErrors(manifests: readonly Manifest[]): Promise<readonly string[]> {
  const errors: string[] = []
  const ajv = new Ajv({ allErrors: true, strict: false })
  for (const manifest of manifests) {
    const facts = factsOf(manifest)
    if (facts !== undefined) {
      const check = ajv.compile(facts as JSONSchemaType<unknown>)
      if (!check(manifest)) errors.push(`${nameOf(manifest)}: ${ajv.errorsText(check.errors)}`)
      continue
    }
    const { [manifest.kind]: Kind } = (await import(moduleOf(manifest))) as Record<string, new (data: Manifest) => Model>
    if (Kind === undefined) throw new Error(`${moduleOf(manifest)} has no ${manifest.kind}`)
    try {
      new Kind(manifest).validate()
    } catch (error) {
      errors.push(`${nameOf(manifest)}: ${error instanceof Error ? error.message : error}`)
    }
  }
  return [...errors, ...findUnknownFields(manifests.filter((manifest) => factsOf(manifest) === undefined))]
}

/** Validators let unknown fields pass, as the API server would warn only; the compiler's check of object literals finds them. */
function findUnknownFields(manifests: readonly Manifest[]): readonly string[] {
  const lines = manifests.map((manifest, index) => {
    const type = `import('${moduleOf(manifest)}').I${manifest.kind}`
    return `export const x${index}: ${type} = ${JSON.stringify(manifest)}`
  })
  // Below the repository, so that packages are found.
  mkdirSync(join(ROOT, '.cache'), { recursive: true })
  const folder = mkdtempSync(join(ROOT, '.cache/kubernetes-'))
  try {
    const file = join(folder, 'manifests.ts')
    writeFileSync(file, lines.join('\n'))
    const flags = ['--noEmit', '--strict', '--skipLibCheck', '--ignoreConfig', '--module', 'nodenext', '--target', 'es2022']
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
    const { stdout } = spawnSync(process.execPath, [tsc, ...flags, file], { cwd: ROOT, encoding: 'utf8' })
    return stdout
      .split('\n')
      .filter((line) => line.includes('error TS'))
      .map((line) => {
        const row = Number(/\((\d+),/.exec(line)?.[1] ?? 1)
        return `${nameOf(manifests[row - 1] as Manifest)}: ${line.replace(/^.*?error /, '')}`
      })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
