// The console in a browser, as tests use it.

import assert from 'node:assert/strict'
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core'
import type { ServerProcess } from './server-process.ts'

/** Longer than any answer here takes on a busy machine. */
const TIMEOUT_MS = 30_000

export class ConsolePage {
  readonly page: Page
  /** Requests that left the server's origin. */
  readonly strayRequests: string[] = []
  /** What the browser complained about: errors of the page, and violations of its policy. */
  readonly complaints: string[] = []
  readonly #url: string

  private constructor(page: Page, url: string) {
    this.page = page
    this.#url = url
    page.setDefaultTimeout(TIMEOUT_MS)
    page.on('request', (request) => {
      if (new URL(request.url()).origin !== new URL(url).origin) this.strayRequests.push(request.url())
    })
    page.on('pageerror', (error) => this.complaints.push(error.message))
    page.on('console', (message) => {
      // Answers that are errors are part of some tests, and the browser logs each.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
        this.complaints.push(message.text())
    })
  }

  /** Without a wait: the page may ask for a key. */
  static async create(browser: Browser, server: ServerProcess, options: BrowserContextOptions = {}): Promise<ConsolePage> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
    return new ConsolePage(await context.newPage(), server.url)
  }

  /** Resolves when models and figures are there. */
  async open(): Promise<void> {
    await this.page.goto(this.#url)
    await this.page.locator('.column').first().waitFor()
    await this.waitForFigures()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.page.context().close()
  }

  column(name: string): Locator {
    return this.page.getByRole('article', { name, exact: true })
  }

  option(name: string): Locator {
    return this.page.locator('.option').filter({ has: this.page.getByText(name, { exact: true }) })
  }

  /** Picks these models and no others. */
  async select(...names: readonly string[]): Promise<void> {
    await this.page.getByRole('button', { name: 'Clear' }).click()
    for (const name of names) await this.option(name).click()
    await this.waitForColumns(names.length)
  }

  async waitForColumns(count: number): Promise<void> {
    const columns = this.page.locator('.column')
    await columns.nth(count - 1).waitFor()
    assert.equal(await columns.count(), count)
  }

  /** The live view has had its first look: what follows is growth. */
  async waitForFigures(): Promise<void> {
    await this.page.locator('.tile-kv .tile-value', { hasText: '%' }).waitFor()
  }

  async write(prompt: string, fields: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.page.getByLabel('Prompt', { exact: true }).fill(prompt)
    for (const [label, value] of Object.entries(fields)) await this.page.getByLabel(label, { exact: true }).fill(value)
  }

  /** No answer ends by itself before a test has looked at it. */
  async makeAnswersLong(): Promise<void> {
    await this.page.route('**/v1/completions', async (route) => {
      const body: unknown = { ...route.request().postDataJSON(), max_tokens: 480, ignore_eos: true }
      await route.continue({ postData: JSON.stringify(body) })
    })
  }

  async send(): Promise<void> {
    await this.page.getByRole('button', { name: 'Send' }).click()
  }

  async waitForState(name: string, state: string): Promise<void> {
    const column = this.column(name)
    await column.and(this.page.locator(`[data-state=${state}]`)).waitFor()
  }

  answer(name: string): Promise<string> {
    return this.column(name).locator('.answer').innerText()
  }

  /** Presses the button as soon as this column shows text: from within the page, so that no answer is over before. */
  async pressAtFirstText(name: string, buttonSelector: string): Promise<void> {
    await this.page.evaluate(`{
      const column = document.querySelector('article[aria-label=${JSON.stringify(name)}]')
      const observer = new MutationObserver(() => {
        if (column.querySelector('.answer').textContent === '') return
        observer.disconnect()
        document.querySelector(${JSON.stringify(buttonSelector)}).click()
      })
      observer.observe(column, { subtree: true, characterData: true, childList: true })
    }`)
  }

  /** True when nothing sticks out to the side. */
  isAsWideAsTheScreen(): Promise<boolean> {
    return this.page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
  }

  assertQuiet(): void {
    assert.deepEqual(this.strayRequests, [])
    assert.deepEqual(this.complaints, [])
  }
}
