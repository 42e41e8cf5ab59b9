import type { Config } from '../config.ts'
import { LorikeetError } from '../errors.ts'
import { DEFAULT_GRPC_PORT, OPTION_NAMES, OPTIONS, type OptionName, type OptionValues } from './options.ts'
import { type GivenOption, scanArgs } from './scan-args.ts'
import { type Environment, scanEnv } from './scan-env.ts'
import { scanFile } from './scan-file.ts'

export interface LoadedConfig {
  readonly config: Config
  /** Options that were given and have no effect, one sentence each. */
  readonly notes: readonly string[]
}

/** Flags win over variables, and both over the file. Throws CONFIG_INVALID naming the first option that is unknown or bad. */
export function loadConfig(args: readonly string[], env: Environment): LoadedConfig {
  const flags = scanArgs(args)
  const variables = scanEnv(env)
  const file = [...flags, ...variables].find((one) => one.name === 'config')?.texts[0]
  const layers = [flags, variables, file === undefined ? [] : scanFile(file)].map(mergeRepeated)
  const given = new Map<OptionName, GivenOption>()
  for (const layer of layers) {
    for (const one of layer) if (!given.has(one.name)) given.set(one.name, one)
  }
  const values = parseValues(given)
  const notes = [...given.values()].flatMap(({ name, origin }) => {
    const { note } = OPTIONS[name]
    return note === null ? [] : [`${origin} has no effect: ${note}`]
  })
  return { config: buildConfig(values, given), notes }
}

/** `--adapter a=x --adapter b=y` is one option with two texts. */
function mergeRepeated(layer: readonly GivenOption[]): readonly GivenOption[] {
  const merged = new Map<OptionName, GivenOption>()
  for (const one of layer) {
    const before = merged.get(one.name)
    merged.set(one.name, before === undefined ? one : { ...before, texts: [...before.texts, ...one.texts] })
  }
  return [...merged.values()]
}

function parseValues(given: ReadonlyMap<OptionName, GivenOption>): OptionValues {
  const values: Partial<Record<OptionName, unknown>> = {}
  for (const name of OPTION_NAMES) {
    const one = given.get(name)
    if (one === undefined) {
      values[name] = OPTIONS[name].fallback
      continue
    }
    const parsed = OPTIONS[name].kind.parse(one.texts)
    if (!parsed.ok) throw new LorikeetError('CONFIG_INVALID', { option: one.origin, reason: parsed.reason })
    values[name] = parsed.value
  }
  // Every name was set from its own kind or fallback, which is what the mapped type says.
  return values as OptionValues
}

function buildConfig(values: OptionValues, given: ReadonlyMap<OptionName, GivenOption>): Config {
  if (values.model === '') {
    throw new LorikeetError('CONFIG_INVALID', {
      option: '--model',
      reason: 'name a model directory, for example --model demo/model',
    })
  }
  const servedNames = values['served-model-name'].length > 0 ? values['served-model-name'] : [values.model]
  const clash = values.adapter.find((adapter) => servedNames.includes(adapter.name))
  if (clash !== undefined) {
    throw new LorikeetError('CONFIG_INVALID', { option: '--adapter', reason: `'${clash.name}' is a name of the base model` })
  }
  return deepFreeze({
    model: {
      path: values.model,
      servedNames,
      backend: values.backend,
      dtype: values.dtype,
      maxModelLen: values['max-model-len'],
      numThreads: values['num-threads'],
    },
    scheduler: {
      maxNumSeqs: maxNumSeqs(values, given),
      maxNumBatchedTokens: values['max-num-batched-tokens'],
      blockSize: values['block-size'],
      kvCacheBytes: values['kv-cache-bytes'],
      enablePrefixCaching: values['enable-prefix-caching'],
      maxQueue: values['max-queue'],
    },
    adapters: {
      adapters: values.adapter,
      adapterDir: values['adapter-dir'],
      allowedPathPrefixes: values['allowed-lora-path-prefix'],
      allowRuntimeUpdating: values['allow-runtime-lora-updating'],
      hostBytes: values['adapter-host-bytes'],
      deviceBytes: values['adapter-device-bytes'],
    },
    server: serverConfig(values),
    grpc: grpcConfig(values),
    metrics: {
      maxAdapters: values['metrics-max-adapters'],
      hasLegacyNames: values['legacy-metrics'],
      loraInfo: values['lora-info'],
    },
    tracing: { endpoint: values['otlp-traces-endpoint'] },
    log: { level: values['log-level'], format: values['log-format'] },
  })
}

function serverConfig(values: OptionValues): Config['server'] {
  return {
    host: values.host,
    port: values.port,
    uds: values.uds,
    apiKeys: values['api-key'],
    guardMetrics: values['guard-metrics'],
    errorStyle: values['error-style'],
    bodyLimitBytes: values['body-limit'],
    maxLogprobs: values['max-logprobs'],
    chatTemplate: values['chat-template'],
    useGenerationConfig: values['generation-config'] === 'auto',
    returnTokensAsTokenIds: values['return-tokens-as-token-ids'],
    streamInterval: values['stream-interval'],
    drainTimeoutMs: values['drain-timeout'],
  }
}

function grpcConfig(values: OptionValues): Config['grpc'] {
  const maxAgeMs = values['grpc-max-connection-age']
  const port = values['grpc-port']
  return {
    port: values.grpc && port !== 0 ? (port ?? DEFAULT_GRPC_PORT) : null,
    isPortRequired: port !== null,
    maxMessageBytes: values['grpc-max-message-bytes'],
    hasReflection: values['grpc-reflection'],
    tls: grpcTls(values),
    maxConnectionAgeMs: maxAgeMs === 0 ? null : maxAgeMs,
  }
}

function grpcTls(values: OptionValues): Config['grpc']['tls'] {
  const { 'grpc-tls-cert': certFile, 'grpc-tls-key': keyFile, 'grpc-tls-client-ca': clientCaFile } = values
  if (certFile !== null && keyFile !== null) return { certFile, keyFile, clientCaFile }
  if (certFile === null && keyFile === null && clientCaFile === null) return null
  const option = certFile === null ? '--grpc-tls-cert' : '--grpc-tls-key'
  throw new LorikeetError('CONFIG_INVALID', { option, reason: 'TLS needs both --grpc-tls-cert and --grpc-tls-key' })
}

/** A running request needs a token of every step's budget, so more requests than tokens would starve the last ones. */
function maxNumSeqs(values: OptionValues, given: ReadonlyMap<OptionName, GivenOption>): number {
  const numSeqs = values['max-num-seqs']
  const numTokens = values['max-num-batched-tokens']
  const one = given.get('max-num-seqs')
  if (one === undefined) return Math.min(numSeqs, numTokens)
  if (numSeqs <= numTokens) return numSeqs
  const reason = `${numSeqs} requests need at least as many tokens a step, and --max-num-batched-tokens is ${numTokens}`
  throw new LorikeetError('CONFIG_INVALID', { option: one.origin, reason })
}

function deepFreeze<T extends object>(value: T): T {
  for (const part of Object.values(value)) if (typeof part === 'object' && part !== null) deepFreeze(part)
  return Object.freeze(value)
}
