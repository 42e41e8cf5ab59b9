// The shipped Prometheus files under Prometheus' own checks.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { missing } from '../support/prometheus.ts'
import { ROOT } from '../support/server-process.ts'

const reason = missing('promtool')
if (reason !== null) console.log(`skipped: ${reason}`)

function promtool(...args: readonly string[]): void {
  const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: join(ROOT, 'deploy/prometheus'), encoding: 'utf8' })
  assert.equal(status, 0, `${stdout}${stderr}`)
}

describe('promtool', { skip: reason ?? false }, () => {
  it('accepts the configuration and the files it names', () => promtool('check', 'config', 'prometheus.yml'))

  it('accepts the rules, and finds nothing to improve in them', () => promtool('check', 'rules', '--lint-fatal', 'rules.yml'))

  it('sees alerts raised when they should be, and only then', () => promtool('test', 'rules', 'rules.test.yml'))
})
