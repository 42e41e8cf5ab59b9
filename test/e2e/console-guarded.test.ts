// The console where more is asked of it: a key, conversations, thousands of odd names, and people who do not see it.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Browser } from 'playwright-core'
import { findBrowser, launchBrowser } from '../support/browser.ts'
import { ConsolePage } from '../support/console-page.ts'
import { CHAT_TEMPLATE } from '../support/http-harness.ts'
import { scratchFolder } from '../support/scratch-folder.ts'
import { DEMO_ADAPTERS, DEMO_MODEL, ServerProcess } from '../support/server-process.ts'

const executable = findBrowser()
const skip = executable === null ? 'no Chromium: set CHROMIUM_PATH or put chromium on the PATH' : false
const KEY = 'a key of this server'
const MARKUP = '<img src=x onerror=alert(1)>'

interface AxeResult {
  readonly violations: readonly { readonly id: string; readonly nodes: readonly { readonly html: string }[] }[]
  readonly passes: readonly unknown[]
}

describe('the console of a server with a key and a chat template', { skip }, () => {
  let server: ServerProcess
  let browser: Browser

  before(async () => {
    const template = join(scratchFolder(), 'template.jinja')
    writeFileSync(template, CHAT_TEMPLATE)
    const model = ['--model', DEMO_MODEL, '--served-model-name', 'stories', '--backend', 'null', '--adapter-dir', DEMO_ADAPTERS]
    server = await ServerProcess.start([...model, '--api-key', KEY, '--guard-metrics', '--chat-template', template])
    browser = await launchBrowser(executable as string)
  })
  after(async () => {
    await browser?.close()
    await server?.stop()
  })

  async function giveKey({ page }: ConsolePage, key: string): Promise<void> {
    const dialog = page.getByRole('dialog', { name: 'API key' })
    await dialog.waitFor()
    await dialog.getByLabel('API key').fill(key)
    await page.keyboard.press('Enter')
  }

  async function openWithKey(view: ConsolePage): Promise<void> {
    await view.page.goto(server.url)
    await giveKey(view, KEY)
    await view.waitForColumns(3)
    await view.waitForFigures()
  }

  it('asks for the key, says when it is wrong, and keeps it for the tab alone', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.page.goto(server.url)
    await giveKey(view, 'wrong')
    await view.page.getByText('The server refused this key.').waitFor()
    await giveKey(view, KEY)
    await view.waitForColumns(3)
    await view.waitForFigures()
    assert.equal(await view.page.evaluate('JSON.stringify(localStorage).includes("a key")'), false)
    await view.page.reload()
    await view.waitForColumns(3)
    await view.write('a', { 'Max tokens': '4' })
    await view.send()
    await view.waitForState('stories', 'done')
    view.assertQuiet()
  })

  it('lets the page be without a key, and says what is missing', async () => {
    await using view = await ConsolePage.create(browser, server)
    await view.page.goto(server.url)
    await view.page.getByRole('dialog', { name: 'API key' }).waitFor()
    await view.page.keyboard.press('Escape')
    await view.page.locator('#notice', { hasText: 'API key' }).waitFor()
    await view.page.locator('.engine-note', { hasText: 'Metrics need the API key.' }).waitFor()
    assert.equal(await view.page.getByRole('dialog').count(), 0, 'it does not ask again by itself')
  })

  it('sends conversations where the model has a template', async () => {
    await using view = await ConsolePage.create(browser, server)
    await openWithKey(view)
    await view.page.getByText('Chat', { exact: true }).click()
    await view.page.getByLabel('System message').fill('Be brief.')
    await view.write('Who are you?', { 'Max tokens': '6' })
    const sent = view.page.waitForRequest('**/v1/chat/completions')
    await view.send()
    const { messages } = (await sent).postDataJSON() as { messages: unknown }
    assert.deepEqual(messages, [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Who are you?' },
    ])
    await view.waitForState('stories', 'done')
    assert.equal(await view.column('stories').locator('.num-tokens').innerText(), '6')
  })

  it('copies a request as curl without the key', async () => {
    await using view = await ConsolePage.create(browser, server, { permissions: ['clipboard-read', 'clipboard-write'] })
    await openWithKey(view)
    await view.write("it's a prompt", { Seed: '5' })
    await view.page.getByRole('button', { name: 'Copy the request to stories as curl' }).click()
    await view.page.locator('#announcer', { hasText: 'Copied.' }).waitFor()
    const command = String(await view.page.evaluate('navigator.clipboard.readText()'))
    assert.ok(command.startsWith(`curl -N '${server.url}/v1/completions'`), command)
    assert.ok(!command.includes(KEY))
    assert.match(command, /\$LORIKEET_API_KEY/)
    assert.match(command, /"seed":5/)
  })

  it('finds one of thousands of models, and shows names as text', async () => {
    await using view = await ConsolePage.create(browser, server)
    const adapters = Array.from({ length: 5000 }, (_, index) => ({ id: `adapter-${index}`, parent: 'stories' }))
    const data = [{ id: 'stories', parent: null }, { id: MARKUP, parent: 'stories' }, ...adapters]
    await view.page.route('**/v1/models', (route) => route.fulfill({ json: { object: 'list', data } }))
    await openWithKey(view)
    assert.equal(await view.page.locator('.option').count(), 100)
    assert.match(await view.page.locator('.list-summary').innerText(), /The first 100 of 5,002/)
    await view.column(MARKUP).waitFor()
    assert.equal(await view.page.locator('main img').count(), 0)
    await view.page.getByLabel('Search adapters').fill('adapter-4321')
    await view.page.keyboard.press('Enter')
    await view.column('adapter-4321').waitFor()
    view.assertQuiet()
  })

  for (const [name, options] of [
    ['light', { colorScheme: 'light' }],
    ['dark', { colorScheme: 'dark' }],
    ['phone', { colorScheme: 'light', viewport: { width: 390, height: 844 } }],
  ] as const) {
    it(`passes the accessibility rules of axe: ${name}`, async () => {
      await using view = await ConsolePage.create(browser, server, { ...options, reducedMotion: 'reduce' })
      await openWithKey(view)
      await view.write('Once upon a time', { 'Max tokens': '40' })
      await view.send()
      await view.waitForState('stories', 'done')
      await view.page.locator('.activity-row').first().waitFor()
      await view.page.evaluate(readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8'))
      const { violations, passes } = (await view.page.evaluate('axe.run()')) as AxeResult
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`),
        [],
      )
      assert.ok(passes.length > 20)
    })
  }
})
