// Writes the generated files of deploy/: Grafana's boards, and the Prometheus rules as a Kubernetes object. npm run deploy-files

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, stringify } from 'yaml'
import { adapters } from './dashboards/adapters.mjs'
import { engine } from './dashboards/engine.mjs'
import { overview } from './dashboards/overview.mjs'

const ROOT = new URL('../', import.meta.url)
const RULES = 'deploy/prometheus/rules.yml'

const board = (content) => `${JSON.stringify(content, null, 2)}\n`

/** Paths below the repository's root and what they hold. */
export function deployFiles() {
  const { groups } = parse(readFileSync(new URL(RULES, ROOT), 'utf8'))
  const prometheusRule = {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: { name: 'lorikeet' },
    spec: { groups },
  }
  return new Map([
    ['deploy/grafana/dashboards/overview.json', board(overview)],
    ['deploy/grafana/dashboards/adapters.json', board(adapters)],
    ['deploy/grafana/dashboards/engine.json', board(engine)],
    [
      'deploy/kubernetes/components/monitoring/prometheus-rule.yaml',
      `# Written by npm run deploy-files from ${RULES}.\n${stringify(prometheusRule, { lineWidth: 128 })}`,
    ],
  ])
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, content] of deployFiles()) {
    const target = fileURLToPath(new URL(path, ROOT))
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, content)
  }
}
