// The texts that Hugging Face gives for the demo model and its adapters, alone and all at once.

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { adapterCases, baseCase, type DemoCase } from '../support/demo-cases.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

const CASES = [baseCase(), ...readdirSync(DEMO_ADAPTERS).sort().flatMap(adapterCases)]

interface Completion {
  readonly choices: readonly { text: string; finish_reason: string; token_ids: number[]; prompt_token_ids: number[] }[]
}

async function complete(url: string, item: DemoCase, more: object = {}): Promise<Completion['choices'][number]> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: item.adapter,
      prompt: item.prompt,
      max_tokens: item.tokenIds.length,
      temperature: 0,
      return_token_ids: true,
      ...more,
    }),
  })
  assert.equal(response.status, 200)
  const [choice] = ((await response.json()) as Completion).choices
  assert.ok(choice)
  return choice
}

function check(item: DemoCase, choice: Completion['choices'][number]): void {
  const name = `${item.adapter ?? 'base'}: ${item.prompt}`
  assert.deepEqual(choice.prompt_token_ids, item.promptIds, name)
  assert.deepEqual(choice.token_ids, item.tokenIds, name)
  assert.equal(choice.text, item.text, name)
  assert.equal(choice.finish_reason, 'length', name)
}

for (const backend of ['reference', 'onnx']) {
  test(`${backend}: every demo text, alone and with all others running`, async (t) => {
    const args = ['--model', DEMO_MODEL, '--backend', backend, '--adapter-dir', DEMO_ADAPTERS]
    const server = ServerProcess.spawn(args)
    t.after(() => server.stop())
    try {
      await server.waitForLog((line) => line.msg === 'listening')
    } catch (error) {
      if (!server.stderr.includes('this build does not contain it')) throw error
      t.skip(`no ${backend} backend in this build`)
      return
    }
    assert.equal(new Set(CASES.map(({ adapter }) => adapter)).size, 12, 'the base and eleven adapters')
    for (const item of CASES) check(item, await complete(server.url, item))
    const together = await Promise.all(CASES.map((item) => complete(server.url, item)))
    together.forEach((choice, index) => {
      check(CASES[index] as DemoCase, choice)
    })
    const pirate = CASES.find(({ adapter }) => adapter === 'pirate') as DemoCase
    const adapters = [
      { name: 'pirate', weight: 1 },
      { name: 'space', weight: 0 },
    ]
    check(pirate, await complete(server.url, { ...pirate, adapter: null }, { adapters }))
    assert.equal(await server.stop(), 0)
  })
}
