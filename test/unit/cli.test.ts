import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type BannerFacts, banner } from '../../src/cli/banner.ts'
import { formatBytes } from '../../src/cli/byte-size.ts'
import { GENERATED_PARTS, replaceGenerated } from '../../src/cli/docs-tables.ts'
import type { RunProgram } from '../../src/cli/doctor/backend-probes.ts'
import { examine, formatReport } from '../../src/cli/doctor/doctor-report.ts'
import { HELP, serveHelp } from '../../src/cli/help.ts'
import { LoadingProgress, progressLine } from '../../src/cli/loading-progress.ts'
import { logFormat } from '../../src/cli/logger.ts'
import { readVersion } from '../../src/cli/version.ts'
import { loadConfig } from '../../src/config/load-config.ts'
import { OPTION_NAMES } from '../../src/config/options.ts'
import { adapterId } from '../../src/core/ids.ts'
import type { AdapterInfo } from '../../src/engine/messages.ts'

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')

describe('help', () => {
  it('shows every option and fits a terminal', () => {
    const help = serveHelp()
    for (const name of OPTION_NAMES) assert.match(help, new RegExp(`^  --(\\[no-\\])?${name}\\b`, 'm'))
    assert.deepEqual(
      `${HELP}${help}`.split('\n').filter((line) => line.length > 110),
      [],
    )
  })
})

describe('generated docs', () => {
  for (const [page, name, render] of GENERATED_PARTS) {
    it(`${page} is what npm run docs writes`, () => {
      const text = readFileSync(join(ROOT, page), 'utf8')
      assert.equal(text, replaceGenerated(text, name, render()))
    })
  }

  it('need their markers', () => assert.equal(replaceGenerated('no markers', 'options', 'x'), null))
})

describe('docs/design.md', () => {
  const design = readFileSync(join(ROOT, 'docs/design.md'), 'utf8')

  it('names constants that are where it says', () => {
    const rows = [...design.matchAll(/^\| (`[^|]+) \| [^|]+ \| `([^`]+)` \|/gm)]
    assert.ok(rows.length > 15)
    for (const [, names = '', file = ''] of rows) {
      const text = readFileSync(join(ROOT, 'src', file), 'utf8')
      for (const [, name = ''] of names.matchAll(/`(?:--)?([^`]+)`/g)) assert.ok(text.includes(name), `${name} in ${file}`)
    }
  })

  it('has a sentence for every folder of src', () => {
    const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
    for (const { name } of folders) assert.ok(design.includes(`\`src/${name}/\``), name)
  })
})

describe('doctor', () => {
  const noGpu: RunProgram = (command) => (command === 'nvidia-smi' ? null : { ok: true, output: '1.30.0 cpu,webgpu' })

  it('says what runs', () => {
    const report = examine('1.2.3', null, noGpu)
    assert.equal(report.runs, true)
    assert.deepEqual(
      report.backends.map(({ name, runs }) => [name, runs]),
      [
        ['onnx', true],
        ['reference', true],
        ['null', true],
        ['cuda', false],
      ],
    )
    assert.match(formatReport(report), /onnx +yes +onnxruntime-node 1\.30\.0/)
    assert.match(formatReport(report), /This machine can serve\.\n$/)
  })

  it('says why onnxruntime does not run', () => {
    const report = examine('1.2.3', null, () => ({
      ok: false,
      output: 'stack\nError: libstdc++.so.6: version not found\nmore',
    }))
    assert.equal(report.runs, false)
    assert.match(formatReport(report), /onnx +no .*libstdc\+\+\.so\.6: version not found/)
    assert.match(formatReport(report), /This machine cannot serve/)
  })

  it('lists GPUs with what the driver says', () => {
    const smi: RunProgram = () => ({
      ok: true,
      output: 'NVIDIA H100 80GB HBM3, 81559, 9.0, 570.86\nNVIDIA L4, 23034, 8.9, 570.86',
    })
    const report = examine('1.2.3', null, smi)
    assert.equal(report.gpus.length, 2)
    assert.deepEqual(report.gpus[1], { name: 'NVIDIA L4', memoryMib: 23034, computeCapability: '8.9', driverVersion: '570.86' })
    assert.match(formatReport(report), /NVIDIA H100 80GB HBM3, 79\.6 GiB, compute capability 9\.0, driver 570\.86/)
  })

  it('estimates the KV cache of a model', () => {
    const { config } = loadConfig([join(ROOT, 'demo/model'), '--kv-cache-bytes', '1MiB'], {})
    const { model } = examine('1.2.3', config, noGpu)
    // 5 layers, 4 KV heads of 8, keys and values, float32.
    assert.equal(model?.facts?.kvBytesPerToken, 2 * 5 * 4 * 8 * 4)
    assert.equal(model?.facts?.numParameters, 260_032)
    assert.equal(model?.facts?.kvTokens, Math.floor(2 ** 20 / 1280 / 16) * 16)
    assert.equal(model?.runs, true)
  })

  it('says what is wrong with a model, or with its size', () => {
    const missing = examine('1.2.3', loadConfig(['/nowhere'], {}).config, noGpu)
    assert.equal(missing.runs, false)
    assert.match(formatReport(missing), /served +no .*\/nowhere/)
    const small = examine('1.2.3', loadConfig([join(ROOT, 'demo/model'), '--kv-cache-bytes', '100KiB'], {}).config, noGpu)
    assert.match(small.model?.problem ?? '', /would hold 80 tokens and one request may have 512/)
  })
})

describe('loading progress', () => {
  it('draws a bar', () => {
    assert.equal(progressLine(0, 2048), `loading weights [${'.'.repeat(30)}] 0 % of 2.0 KiB`)
    assert.match(progressLine(1024, 2048), /\[#{15}\.{15}\] 50 %/)
    assert.match(progressLine(5, 0), /100 %/)
  })

  it('redraws seldom, but always the end, and clears what it drew', () => {
    const writes: string[] = []
    let nowMs = 0
    const progress = new LoadingProgress({ write: (text) => writes.push(text) }, () => nowMs)
    progress.clear()
    assert.equal(writes.length, 0)
    progress.update(1, 100)
    progress.update(2, 100)
    nowMs = 150
    progress.update(3, 100)
    progress.update(100, 100)
    assert.equal(writes.length, 3)
    progress.clear()
    assert.equal(writes.at(-1), '\r\x1b[K')
  })
})

describe('banner', () => {
  const adapter = (name: string): AdapterInfo => ({
    id: adapterId(1),
    name,
    path: `/a/${name}`,
    kind: 'LORA',
    digest: 'd',
    maxRank: 8,
    numVirtualTokens: 0,
    numBytes: 184_960,
    hostBytes: 0,
    deviceBytes: 0,
    isLoading: false,
    isMixture: false,
    loadedAtMs: 0,
    state: 'loaded',
  })
  const facts: BannerFacts = {
    version: '1.2.3',
    url: 'http://localhost:8000',
    grpcPort: null,
    needsKey: false,
    baseName: 'demo/model',
    model: {
      modelType: 'llama',
      backend: 'onnx',
      dtype: 'float32',
      vocabSize: 512,
      maxModelLen: 512,
      blockSize: 16,
      numBlocks: 64,
      maxNumSeqs: 8,
      maxNumBatchedTokens: 64,
    },
    adapters: [adapter('pirate'), adapter('space')],
    refusedAdapters: ['cat'],
    hasTokenizer: true,
  }
  const curls = (text: string) => text.split('\n').filter((line) => line.startsWith('  curl'))

  it('names the model, its adapters and three requests', () => {
    const text = banner(facts)
    assert.match(text, /ready on http:\/\/localhost:8000/)
    assert.match(text, /pirate +LORA, rank 8, 181 KiB/)
    assert.match(text, /refused +cat /)
    assert.match(text, /KV cache for 1024 tokens/)
    assert.match(text, /console +http:\/\/localhost:8000\/ /)
    assert.equal(curls(text).length, 3)
    const body = /-d '(.*)'$/.exec(curls(text)[0]!)?.[1] ?? ''
    assert.deepEqual(JSON.parse(body), { model: 'pirate', prompt: 'Once upon a time', max_tokens: 48, temperature: 0 })
    assert.match(curls(text)[1]!, /-N .*"model":"space".*"stream":true/)
  })

  it('fits a socket, a key, no tokenizer and no adapter', () => {
    const text = banner({
      ...facts,
      url: 'unix:/run/l.sock',
      needsKey: true,
      adapters: [],
      refusedAdapters: [],
      hasTokenizer: false,
    })
    assert.match(
      curls(text)[0]!,
      /^ {2}curl -s --unix-socket \/run\/l\.sock http:\/\/localhost\/v1\/completions -H "Authorization: Bearer/,
    )
    assert.match(curls(text)[0]!, /"model":"demo\/model","prompt":\[1\],"return_token_ids":true/)
    assert.match(text, /adapters +none/)
    assert.doesNotMatch(text, /refused|console/)
  })
})

it('logs are pretty on a terminal and JSON otherwise, unless told', () => {
  assert.equal(logFormat({ level: 'info', format: 'auto' }, true), 'pretty')
  assert.equal(logFormat({ level: 'info', format: 'auto' }, false), 'json')
  assert.equal(logFormat({ level: 'info', format: 'json' }, true), 'json')
})

it('sizes are for people', () => {
  assert.equal(formatBytes(512), '512 bytes')
  assert.equal(formatBytes(1536), '1.5 KiB')
  assert.equal(formatBytes(200 * 2 ** 30), '200 GiB')
})

it('the version is package.json’s', () => assert.match(readVersion(), /^\d+\.\d+\.\d+$/))
