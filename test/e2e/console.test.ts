// The console in a real browser, on the demo model with its adapters.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Browser } from 'playwright-core'
import { findBrowser, launchBrowser } from '../support/browser.ts'
import { ConsolePage } from '../support/console-page.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

const executable = findBrowser()
const skip = executable === null ? 'no Chromium: set CHROMIUM_PATH or put chromium on the PATH' : false
const PROMPT = 'Once upon a time'
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }

describe('the console on the demo model', { skip }, () => {
  let server: ServerProcess
  let browser: Browser

  before(async () => {
    const model = ['--model', DEMO_MODEL, '--served-model-name', 'stories', '--adapter-dir', DEMO_ADAPTERS]
    server = await ServerProcess.start([...model, '--allow-runtime-lora-updating'])
    browser = await launchBrowser(executable as string)
  })
  after(async () => {
    await browser?.close()
    await server?.stop()
  })

  async function post(path: string, body: object): Promise<Response> {
    const headers = { 'content-type': 'application/json' }
    const response = await fetch(`${server.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    assert.equal(response.status, 200, path)
    return response
  }

  async function textOf(model: string): Promise<string> {
    const response = await post('/v1/completions', { model, prompt: PROMPT, max_tokens: 60, temperature: 0 })
    return ((await response.json()) as { choices: [{ text: string }] }).choices[0].text
  }

  async function metric(line: string): Promise<number> {
    const text = await (await fetch(`${server.url}/metrics`)).text()
    const found = text.split('\n').find((one) => one.startsWith(line))
    assert.ok(found, line)
    return Number(found.slice(found.lastIndexOf(' ') + 1))
  }

  it('streams one prompt to several models at once, and shows the engine', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.open()
    await view.select('stories', 'pirate', 'robot', 'shout')
    await view.write(PROMPT, { Temperature: '0', 'Max tokens': '60' })
    await view.send()
    await view.page.locator('[data-state=streaming]').nth(1).waitFor()
    for (const name of ['stories', 'pirate', 'robot', 'shout']) {
      await view.waitForState(name, 'done')
      assert.equal((await view.answer(name)).trim(), (await textOf(name)).trim(), name)
      assert.equal(await view.column(name).locator('.num-tokens').innerText(), '60')
      assert.match(await view.column(name).locator('.ttft').innerText(), /^[\d.]+ m?s$/)
      assert.match(await view.column(name).locator('.tokens-per-s').innerText(), /^[\d.,]+\/s$/)
    }
    const activity = view.page.locator('.activity-row').filter({ hasText: 'pirate' })
    await activity.waitFor()
    assert.ok(Number(await activity.locator('.activity-tokens').innerText()) >= 60)
    assert.match(await view.page.locator('.tile-memory .tile-details').innerText(), /of 11 adapters/)
    assert.match(await view.page.locator('.tile-kv .tile-value').innerText(), /%$/)
    view.assertQuiet()
  })

  it('stops one column, and then all', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.open()
    await view.makeAnswersLong()
    await view.select('stories', 'pirate', 'robot')
    await view.write(PROMPT)
    const aborted = await metric('vllm:request_success_total{model_name="stories",engine="0",finished_reason="abort"}')
    await view.pressAtFirstText('pirate', 'article[aria-label="pirate"] .stop-column')
    await view.pressAtFirstText('robot', '#composer .stop')
    await view.send()
    for (const name of ['pirate', 'robot', 'stories']) await view.waitForState(name, 'stopped')
    assert.notEqual(await view.answer('pirate'), '', 'what came before stays')
    assert.equal(await view.page.locator('#composer .stop').isHidden(), true)
    while ((await metric('vllm:num_requests_running')) > 0) await new Promise((wake) => setTimeout(wake, 20))
    const now = await metric('vllm:request_success_total{model_name="stories",engine="0",finished_reason="abort"}')
    assert.equal(now - aborted, 3, 'the engine was told')
    view.assertQuiet()
  })

  it('has more columns than the browser has connections', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.open()
    const names = ['stories', 'ask', 'cat', 'chef', 'dragon', 'knight', 'pirate', 'rain']
    await view.select(...names)
    await view.write(PROMPT, { 'Max tokens': '24' })
    await view.send()
    for (const name of names) await view.waitForState(name, 'done')
    assert.equal(await view.page.locator('#server-status').innerText(), 'Ready')
  })

  it('shows an error in the column it belongs to', async () => {
    await using view = await ConsolePage.create(browser, server)
    await post('/v1/load_lora_adapter', { lora_name: 'brief', lora_path: join(DEMO_ADAPTERS, 'pirate') })
    await view.open()
    await view.select('stories', 'brief')
    await post('/v1/unload_lora_adapter', { lora_name: 'brief' })
    await view.write(PROMPT, { 'Max tokens': '8' })
    await view.send()
    await view.waitForState('stories', 'done')
    await view.waitForState('brief', 'failed')
    assert.match(await view.column('brief').getByRole('alert').innerText(), /`brief` does not exist/)
    await view.write(PROMPT, { 'Max tokens': '9999' })
    await view.send()
    await view.waitForState('stories', 'failed')
    assert.match(await view.column('stories').getByRole('alert').innerText(), /maximum context length is 512 tokens/)
    await view.option('brief').waitFor({ state: 'detached' })
  })

  it('is used by keyboard alone', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.open()
    await view.makeAnswersLong()
    const { keyboard } = view.page
    await view.select('stories')
    await view.page.evaluate('document.activeElement.blur()')
    await keyboard.press('/')
    await keyboard.type('ro')
    await keyboard.press('ArrowDown')
    await keyboard.press('Space')
    await view.waitForColumns(2)
    assert.equal(await view.option('robot').getAttribute('aria-selected'), 'true')
    const focused = () => view.page.evaluate('document.activeElement.id || document.activeElement.name')
    for (let presses = 0; presses < 6 && (await focused()) !== 'prompt'; presses++) await keyboard.press('Tab')
    assert.equal(await focused(), 'prompt')
    await keyboard.type(PROMPT)
    await keyboard.press('Tab')
    assert.equal(await focused(), 'temperature')
    await keyboard.press('Shift+Tab')
    await keyboard.press('Control+Enter')
    await view.waitForState('robot', 'streaming')
    await keyboard.press('Escape')
    for (const name of ['stories', 'robot']) await view.waitForState(name, 'stopped')
  })

  it('fits a phone', async () => {
    await using view = await ConsolePage.create(browser, server, PHONE)
    await view.open()
    assert.equal(await view.page.getByLabel('Search adapters').isVisible(), false, 'the list is folded away')
    await view.page.locator('#picker summary').tap()
    await view.option('dragon').tap()
    await view.page.locator('#picker summary').tap()
    await view.write(PROMPT, { 'Max tokens': '24' })
    await view.page.getByRole('button', { name: 'Send' }).tap()
    await view.waitForState('dragon', 'done')
    assert.equal(await view.isAsWideAsTheScreen(), true)
    view.assertQuiet()
  })

  it('is dark when the system is, and when it is told', async () => {
    const background = 'getComputedStyle(document.body).backgroundColor'
    await using dark = await ConsolePage.create(browser, server, { colorScheme: 'dark' })
    await using light = await ConsolePage.create(browser, server, { colorScheme: 'light' })
    await dark.open()
    await light.open()
    const [night, day] = [await dark.page.evaluate(background), await light.page.evaluate(background)]
    assert.notEqual(night, day)
    await dark.page.getByRole('button', { name: 'Colour theme: system' }).click()
    await dark.page.getByRole('button', { name: 'Colour theme: light' }).waitFor()
    assert.equal(await dark.page.evaluate(background), day)
    await dark.page.reload()
    assert.equal(await dark.page.evaluate(background), day, 'remembered')
    await dark.page.getByRole('button', { name: 'Colour theme: light' }).click()
    assert.equal(await dark.page.evaluate(background), night)
  })
})
