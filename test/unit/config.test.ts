import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { loadConfig } from '../../src/config/load-config.ts'
import { nearMiss } from '../../src/config/near-miss.ts'
import type { Environment } from '../../src/config/scan-env.ts'
import { LorikeetError } from '../../src/errors.ts'
import { tempDir } from '../support/safetensors-file.ts'

const config = (args: string, env: Environment = {}) =>
  loadConfig(['--model', 'm', ...args.split(' ').filter(Boolean)], env).config

function writeJson(value: unknown): string {
  const path = join(tempDir(), 'server.json')
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value))
  return path
}

/** The message of the CONFIG_INVALID that `run` throws. */
function refusal(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    assert.ok(error instanceof LorikeetError)
    assert.equal(error.code, 'CONFIG_INVALID')
    return error.message
  }
  return assert.fail('nothing was refused')
}

describe('defaults', () => {
  it('are vLLM’s where it has the option', () => {
    const { model, scheduler, adapters, server, log } = config('')
    assert.deepEqual(model, { path: 'm', servedNames: ['m'], backend: 'onnx', dtype: 'auto', maxModelLen: null, numThreads: 0 })
    assert.equal(scheduler.maxNumSeqs, 256)
    assert.equal(scheduler.blockSize, 16)
    assert.equal(scheduler.enablePrefixCaching, true)
    assert.equal(scheduler.kvCacheBytes, null)
    assert.equal(adapters.allowRuntimeUpdating, false)
    assert.deepEqual(adapters.adapters, [])
    assert.equal(server.host, '0.0.0.0')
    assert.equal(server.port, 8000)
    assert.equal(server.bodyLimitBytes, 32 * 1024 * 1024)
    assert.equal(server.maxLogprobs, 20)
    assert.deepEqual(log, { level: 'info', format: 'auto' })
  })

  it('are frozen through and through', () => {
    const frozen = config('--adapter a=x')
    assert.ok(Object.isFrozen(frozen) && Object.isFrozen(frozen.server) && Object.isFrozen(frozen.adapters.adapters[0]))
  })
})

describe('flags', () => {
  it('take their value after a space or an equals sign, and underscores as vLLM does', () => {
    assert.equal(config('--port 9').server.port, 9)
    assert.equal(config('--port=9').server.port, 9)
    assert.equal(config('--max_num_seqs 3').scheduler.maxNumSeqs, 3)
    assert.equal(config('--max-logprobs -1').server.maxLogprobs, -1)
  })

  it('take the model as a bare word', () => {
    assert.equal(loadConfig(['demo/model', '--port', '9'], {}).config.model.path, 'demo/model')
    assert.match(
      refusal(() => loadConfig(['demo/model', 'more'], {})),
      /^more: unexpected argument/,
    )
  })

  it('switch on, off, and by word', () => {
    assert.equal(config('--no-enable-prefix-caching').scheduler.enablePrefixCaching, false)
    assert.equal(config('--enable-prefix-caching=false').scheduler.enablePrefixCaching, false)
    assert.equal(config('--allow-runtime-lora-updating').adapters.allowRuntimeUpdating, true)
    assert.equal(config('--allow-runtime-lora-updating False --port 7').adapters.allowRuntimeUpdating, false)
  })

  it('collect lists over repeats, spaces and aliases', () => {
    const { adapters } = config('--adapter a=x --lora-modules b=y {"name":"c","path":"z=1"} --port 1').adapters
    assert.deepEqual(adapters, [
      { name: 'a', path: 'x' },
      { name: 'b', path: 'y' },
      { name: 'c', path: 'z=1' },
    ])
    assert.deepEqual(config('--api-key k1 k2 --api-key k3').server.apiKeys, ['k1', 'k2', 'k3'])
    assert.deepEqual(config('--served-model-name s t').model.servedNames, ['s', 't'])
  })

  it('read sizes, counts with suffixes, seconds and other spellings', () => {
    assert.equal(config('--kv-cache-bytes 1.5GiB').scheduler.kvCacheBytes, 1.5 * 2 ** 30)
    assert.equal(config('--kv-cache-memory-bytes 100MB').scheduler.kvCacheBytes, 1e8)
    assert.equal(config('--kv-cache-bytes 4096').scheduler.kvCacheBytes, 4096)
    assert.equal(config('--max-model-len 8k').model.maxModelLen, 8000)
    assert.equal(config('--max-model-len 8K').model.maxModelLen, 8192)
    assert.equal(config('--max-model-len auto').model.maxModelLen, null)
    assert.equal(config('--drain-timeout 0.5').server.drainTimeoutMs, 500)
    assert.equal(config('--dtype half').model.dtype, 'float16')
    assert.equal(config('--generation-config vllm').server.useGenerationConfig, false)
  })
})

describe('what is refused', () => {
  const cases: readonly (readonly [args: string, message: RegExp])[] = [
    ['--prot 1', /^--prot: no such option\. Did you mean --port\?/],
    ['--max-seqs 1', /Did you mean --max-num-seqs\?/],
    ['--completely-unrelated-words', /^--completely-unrelated-words: no such option\. lorikeet help/],
    ['--no-port', /^--no-port: no such option/],
    ['--port', /^--port: needs a value/],
    ['--port --host h', /^--port: needs a value/],
    ['--port eighty', /^--port: must be a whole number from 0 to 65535, not 'eighty'/],
    ['--port 65536', /^--port/],
    ['--port 1e3', /^--port/],
    ['--port 1 --port 2', /^--port: takes one value, not 2/],
    ['--backend gpu', /^--backend: must be one of onnx, reference, null, cuda, not 'gpu'/],
    ['--kv-cache-bytes 4XB', /^--kv-cache-bytes: must be a size such as 512MiB/],
    ['--max-num-seqs 0', /^--max-num-seqs: must be a whole number from 1/],
    ['--adapter pirate', /^--adapter: must be NAME=DIR/],
    ['--adapter {"name":"a"}', /^--adapter: must be NAME=DIR/],
    ['--adapter a=x a=y', /^--adapter: the name 'a' is given twice/],
    ['--adapter m=x', /^--adapter: 'm' is a name of the base model/],
    ['--enable-prefix-caching=maybe', /^--enable-prefix-caching: must be true or false/],
    ['--drain-timeout never', /^--drain-timeout: must be seconds/],
    ['--max-num-seqs 64 --max-num-batched-tokens 32', /^--max-num-seqs: 64 requests need at least as many tokens/],
    ['--lora-dtype bfloat16', /^--lora-dtype: adapters compute in float32/],
    ['--lora-target-modules q_proj', /^--lora-target-modules: restricting/],
    ['-tp 2', /^-tp: this version computes on one device/],
    ['--no-enable-lora', /^--no-enable-lora: adapters cannot be switched off/],
  ]
  for (const [args, message] of cases) {
    it(args, () =>
      assert.match(
        refusal(() => config(args)),
        message,
      ),
    )
  }

  it('no model', () =>
    assert.match(
      refusal(() => loadConfig([], {})),
      /^--model: name a model directory/,
    ))
})

describe('environment', () => {
  it('sets what flags do not', () => {
    const env = { LORIKEET_PORT: '7', LORIKEET_HOST: 'h', LORIKEET_ADAPTER: 'a=x, b=y', LORIKEET_API_KEY: '["k,1"]' }
    const { server, adapters } = config('--host flag', env)
    assert.equal(server.port, 7)
    assert.equal(server.host, 'flag')
    assert.deepEqual(server.apiKeys, ['k,1'])
    assert.deepEqual(
      adapters.adapters.map((one) => one.name),
      ['a', 'b'],
    )
  })

  it('knows vLLM’s variables, below its own', () => {
    assert.deepEqual(config('', { VLLM_API_KEY: 'a,b' }).server.apiKeys, ['a,b'])
    assert.deepEqual(config('', { VLLM_API_KEY: 'a', LORIKEET_API_KEY: 'b' }).server.apiKeys, ['b'])
    assert.equal(config('', { VLLM_ALLOW_RUNTIME_LORA_UPDATING: 'True' }).adapters.allowRuntimeUpdating, true)
    assert.equal(config('', { VLLM_LORA_RESOLVER_CACHE_DIR: 'd' }).adapters.adapterDir, 'd')
  })

  it('refuses what it does not know, by name', () => {
    assert.match(
      refusal(() => config('', { LORIKEET_PROT: '1' })),
      /^LORIKEET_PROT: no such option\. Did you mean LORIKEET_PORT\?/,
    )
    assert.match(
      refusal(() => config('', { LORIKEET_PORT: 'x' })),
      /^LORIKEET_PORT: must be/,
    )
  })

  it('survives what Kubernetes sets for a service of this name, and empty variables', () => {
    const env = {
      LORIKEET_PORT: 'tcp://10.0.0.1:80',
      LORIKEET_PORT_80_TCP_ADDR: '10.0.0.1',
      LORIKEET_SERVICE_HOST: '10.0.0.1',
      LORIKEET_HOST: '',
    }
    assert.equal(config('', env).server.port, 8000)
    assert.equal(config('', env).server.host, '0.0.0.0')
  })
})

describe('config file', () => {
  it('sets what flags and variables do not', () => {
    const path = writeJson({
      model: 'file',
      port: 1,
      host: 'file',
      max_num_seqs: 5,
      'guard-metrics': true,
      adapter: { a: 'x' },
      'api-key': ['k'],
    })
    const { config: loaded } = loadConfig(['--config', path, '--port', '3'], { LORIKEET_HOST: 'env' })
    assert.equal(loaded.model.path, 'file')
    assert.equal(loaded.server.port, 3)
    assert.equal(loaded.server.host, 'env')
    assert.equal(loaded.scheduler.maxNumSeqs, 5)
    assert.equal(loaded.server.guardMetrics, true)
    assert.deepEqual(loaded.adapters.adapters, [{ name: 'a', path: 'x' }])
    assert.equal(loadConfig([], { LORIKEET_CONFIG: path }).config.server.port, 1)
  })

  it('is refused with the key at fault', () => {
    const load = (value: unknown) => refusal(() => config(`--config ${writeJson(value)}`))
    assert.match(load({ prot: 1 }), /server\.json: prot: no such option\. Did you mean "port"\?/)
    assert.match(load({ port: 'x' }), /server\.json: port: must be a whole number/)
    assert.match(load({ port: null }), /server\.json: port: must be a string/)
    assert.match(load('{"port": 1'), /^--config: cannot read .*server\.json as JSON/)
    assert.match(load([]), /must hold one JSON object/)
    assert.match(
      refusal(() => config('--config /nowhere.json')),
      /^--config: cannot read \/nowhere\.json/,
    )
  })
})

describe('notes', () => {
  it('tell which options of vLLM have no effect', () => {
    const { notes } = loadConfig(
      ['--model', 'm', '--enable-lora', '--max-loras', '4', '--max-lora-rank', '64', '--gpu-memory-utilization', '0.9'],
      {},
    )
    assert.equal(notes.length, 4)
    assert.match(notes[1]!, /^--max-loras has no effect: A step has no cap/)
  })

  it('limit requests to the tokens of a step when only those are given', () => {
    assert.equal(config('--max-num-batched-tokens 32').scheduler.maxNumSeqs, 32)
  })
})

it('a near miss is near', () => {
  assert.equal(nearMiss('hots', ['host', 'port']), 'host')
  assert.equal(nearMiss('xyzzy', ['host', 'port']), null)
})
