// A real Prometheus on the shipped configuration, scraping a server under test.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, stringify } from 'yaml'
import { ROOT } from './server-process.ts'

export interface Sample {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [number, string]
}

interface Rule {
  readonly name: string
  readonly health: string
  readonly lastError?: string
}

const READY_TIMEOUT_MS = 20_000

/** Null when the program is there, else why a test of it is skipped. */
export const missing = (program: 'prometheus' | 'promtool'): string | null =>
  spawnSync(program, ['--version']).error === undefined
    ? null
    : `${program} is not on the PATH (Debian: apt-get install prometheus)`

export class Prometheus {
  readonly folder = mkdtempSync(join(tmpdir(), 'lorikeet-prometheus-'))
  readonly #child: ChildProcess
  readonly #url: string
  #log = ''

  private constructor(port: number, targetPort: string, scrapeInterval: string) {
    this.#url = `http://127.0.0.1:${port}`
    const config = join(this.folder, 'prometheus.yml')
    writeFileSync(config, shippedConfig(`127.0.0.1:${targetPort}`, `127.0.0.1:${port}`, scrapeInterval))
    const flags = [`--config.file=${config}`, `--storage.tsdb.path=${join(this.folder, 'data')}`, '--log.level=warn']
    this.#child = spawn('prometheus', [...flags, `--web.listen-address=127.0.0.1:${port}`], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    process.once('exit', () => this.#child.kill('SIGKILL'))
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.on('data', (chunk: Buffer) => (this.#log += chunk))
  }

  /** Resolves when it answers queries. */
  static async start(target: string, scrapeInterval: string): Promise<Prometheus> {
    const prometheus = new Prometheus(await freePort(), new URL(target).port, scrapeInterval)
    const deadlineMs = Date.now() + READY_TIMEOUT_MS
    for (;;) {
      const isReady = await fetch(`${prometheus.#url}/-/ready`).then(
        (answer) => answer.ok,
        () => false,
      )
      if (isReady) return prometheus
      if (Date.now() > deadlineMs || prometheus.#child.exitCode !== null) {
        await prometheus.stop()
        throw new Error(`prometheus does not start\n${prometheus.#log}`)
      }
      await new Promise((wake) => setTimeout(wake, 100))
    }
  }

  /** Samples of an instant query now. */
  async query(expression: string): Promise<readonly Sample[]> {
    const { result } = await this.#ask<{ result: readonly Sample[] }>('query', { query: expression })
    return result
  }

  /** What `label_values(selector, label)` of Grafana lists. */
  labelValues(selector: string, label: string): Promise<readonly string[]> {
    return this.#ask(`label/${label}/values?match[]=${encodeURIComponent(selector)}`)
  }

  async rules(): Promise<readonly Rule[]> {
    const { groups } = await this.#ask<{ groups: readonly { rules: readonly Rule[] }[] }>('rules')
    return groups.flatMap((group) => group.rules)
  }

  async #ask<T>(path: string, form?: Readonly<Record<string, string>>): Promise<T> {
    const request = form === undefined ? {} : { method: 'POST', body: new URLSearchParams(form) }
    const answer = await fetch(`${this.#url}/api/v1/${path}`, request)
    const body = (await answer.json()) as { status: string; error?: string; data: T }
    if (body.status !== 'success') throw new Error(`${path} ${JSON.stringify(form)}: ${body.error}`)
    return body.data
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGTERM')
    await ended
  }
}

/** deploy/prometheus/prometheus.yml with other addresses, and scraping often enough for a short test. */
function shippedConfig(server: string, itself: string, scrapeInterval: string): string {
  const folder = join(ROOT, 'deploy/prometheus')
  const config = parse(readFileSync(join(folder, 'prometheus.yml'), 'utf8'))
  config.global = { scrape_interval: scrapeInterval, evaluation_interval: '1s' }
  config.rule_files = config.rule_files.map((file: string) => join(folder, file))
  for (const job of config.scrape_configs) {
    job.static_configs[0].targets = [job.job_name === 'lorikeet' ? server : itself]
  }
  return stringify(config)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
