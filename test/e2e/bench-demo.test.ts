// The built program measures the built server: `lorikeet bench` starts `lorikeet serve` on the null backend and sweeps its flags.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { BenchResult } from '../../bench/metrics/bench-result.ts'

const ROOT = join(import.meta.dirname ?? '.', '../..')
const MAIN = join(ROOT, 'dist/main.js')
const folder = mkdtempSync(join(tmpdir(), 'lorikeet-bench-'))
after(() => rmSync(folder, { recursive: true, force: true }))

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

test('ShareGPT lengths over the demo model and its adapters, for two settings of the server, with a report', async () => {
  const port = await freePort()
  const serve = `${process.execPath} ${MAIN} serve --model demo/model --adapter-dir demo/adapters --backend null --host 127.0.0.1 --port ${port} --no-grpc`
  const [saved, report] = [join(folder, 'sweep.json'), join(folder, 'sweep.html')]
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      ...[MAIN, 'bench', '--start-server', serve, '--base-url', `http://127.0.0.1:${port}`, '--dataset', 'sharegpt-lengths'],
      ...['--num-prompts', '30', '--arrival', 'poisson', '--request-rate', '40', '--over', 'server.max-num-seqs=4,64'],
      ...['--save-result', saved, '--report', report, '--progress', 'none'],
    ],
    { cwd: ROOT, encoding: 'utf8', timeout: 120_000 },
  )
  assert.equal(status, 0, stderr)
  const results = JSON.parse(readFileSync(saved, 'utf8')) as readonly BenchResult[]
  assert.deepEqual(
    results.map((result) => [result['label'], result['completed'], result['failed']]),
    [
      ['server.max-num-seqs=4', 30, 0],
      ['server.max-num-seqs=64', 30, 0],
    ],
  )
  for (const { lorikeet } of results) {
    assert.ok(lorikeet.by_adapter.length >= 3, 'adapters are found by the model list')
    assert.equal(lorikeet.setup['prompt_tokens_from'], 'tokenize')
    assert.equal(lorikeet.setup['max_model_len'], 512)
    assert.equal(lorikeet.output_lengths_counted_by, 'usage')
  }
  assert.ok(existsSync(report))
  await assert.rejects(fetch(`http://127.0.0.1:${port}/health`), 'the server that the harness started is gone')
})
