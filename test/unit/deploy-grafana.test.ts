// Boards, rules and what they ask for: generated files are current, and every name and label they use is one that /metrics has.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parse } from 'yaml'
import { boardQueries, labelValues, readDashboards } from '../support/dashboards.ts'
import { documentedSeries } from '../support/metric-docs.ts'
import { promqlNames } from '../support/promql.ts'
import { ROOT } from '../support/server-process.ts'
import { VLLM_MODEL_VARIABLES, vllmBoardQueries } from '../support/vllm-boards.ts'
import { ABSENT_FAMILIES, vllmFleetQueries } from '../support/vllm-fleet-boards.ts'

interface Rule {
  readonly record?: string
  readonly alert?: string
  readonly expr: string
}

const readText = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const boards = readDashboards()
const { groups } = parse(readText('deploy/prometheus/rules.yml')) as { groups: readonly { rules: readonly Rule[] }[] }
const rules = groups.flatMap((group) => group.rules)

// Prometheus adds these to everything it scrapes; a board may group by them.
const TARGET_LABELS = ['instance', 'job']

/** Series beside those of docs/metrics.md: Prometheus' own, prom-client's defaults, and what recording rules write. */
function knownSeries(): ReadonlyMap<string, ReadonlySet<string>> {
  const known = new Map(documentedSeries())
  known.set('up', new Set())
  for (const name of ['cpu_seconds_total', 'resident_memory_bytes', 'open_fds', 'max_fds', 'start_time_seconds'])
    known.set(`process_${name}`, new Set())
  known.set('nodejs_heap_size_used_bytes', new Set())
  for (const quantile of ['p50', 'p99']) known.set(`nodejs_eventloop_lag_${quantile}_seconds`, new Set())
  known.set('nodejs_gc_duration_seconds_sum', new Set(['kind']))
  for (const { record, expr } of rules) if (record !== undefined) known.set(record, new Set(promqlNames(expr).grouping))
  return known
}

const known = knownSeries()

/** Names and labels of an expression that nothing would answer. */
function unknownParts(expr: string): readonly string[] {
  const { series, grouping } = promqlNames(expr)
  const unknownNames = series.filter(({ name }) => !known.has(name)).map(({ name }) => name)
  const labelsOf = (name: string): ReadonlySet<string> => new Set([...(known.get(name) ?? []), ...TARGET_LABELS])
  const unknownMatchers = series.flatMap(({ name, labels }) =>
    labels.filter((label) => !labelsOf(name).has(label)).map((label) => `${name}{${label}}`),
  )
  const any = new Set(series.flatMap(({ name }) => [...labelsOf(name)]))
  return [...unknownNames, ...unknownMatchers, ...grouping.filter((label) => !any.has(label))]
}

describe('the reader of PromQL', () => {
  it('finds names, matched labels and groups', () => {
    const { series, grouping } = promqlNames(
      'histogram_quantile(0.9, sum by (le, x) (rate(a:b_bucket{m=~"$m", n!="1"}[$__rate_interval]))) and on (j) (c > 0) or vector(1)',
    )
    assert.deepEqual(series, [
      { name: 'a:b_bucket', labels: ['m', 'n'] },
      { name: 'c', labels: [] },
    ])
    assert.deepEqual(grouping, ['le', 'x', 'j'])
  })

  it('reports a name and a label that do not exist', () => {
    assert.deepEqual(unknownParts('sum by (nope) (vllm:num_requests_runing{adapter="a"}) + lorikeet_build_info{adapter="b"}'), [
      'vllm:num_requests_runing',
      'vllm:num_requests_runing{adapter}',
      'lorikeet_build_info{adapter}',
      'nope',
    ])
  })
})

describe('Grafana boards', () => {
  it('are what npm run deploy-files writes, and so is the Kubernetes rule object', async () => {
    const { deployFiles } = (await import('../../scripts/deploy-files.mjs' as string)) as {
      deployFiles: () => ReadonlyMap<string, string>
    }
    for (const [path, content] of deployFiles()) assert.equal(readText(path), content, `${path}: run npm run deploy-files`)
  })

  for (const board of boards) {
    it(`${board.file}: every panel says what it shows, has a unit, and overlaps no other`, () => {
      const shown = board.panels.filter((panel) => panel.type !== 'row')
      assert.ok(shown.length >= 10)
      assert.equal(new Set(board.panels.map((panel) => panel.id)).size, board.panels.length)
      for (const { title, description = '', fieldConfig, targets = [] } of shown) {
        assert.ok(description.length > 10, `${title} has no description`)
        assert.ok(fieldConfig?.defaults.unit, `${title} has no unit`)
        assert.ok(targets.length > 0, `${title} asks nothing`)
      }
      const cells = board.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
        Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`),
      )
      assert.equal(new Set(cells).size, cells.length, 'panels overlap')
      assert.ok(board.panels.every(({ gridPos }) => gridPos.x + gridPos.w <= 24))
    })

    it(`${board.file}: uses only variables that it declares`, () => {
      const declared = new Set(board.templating.list.map((variable) => `$${variable.name}`))
      const used = JSON.stringify(board).match(/\$(?!__)\w+/g) ?? []
      assert.deepEqual(
        used.filter((name) => !declared.has(name)),
        [],
      )
    })
  }

  it('ask only for series and labels that /metrics has', () => {
    const wrong = boardQueries(boards).flatMap(({ where, expr }) => unknownParts(expr).map((part) => `${where}: ${part}`))
    assert.deepEqual(wrong, [])
  })

  it('fill their variables from labels that /metrics has', () => {
    const definitions = boards.flatMap((board) => board.templating.list.flatMap((variable) => variable.definition ?? []))
    assert.ok(definitions.length >= 7)
    for (const definition of definitions) {
      const { selector, label } = labelValues(definition)
      assert.deepEqual(unknownParts(`sum by (${label}) (${selector})`), [], definition)
    }
  })

  it('are provisioned from the folder where compose and Kubernetes put them', () => {
    const { providers } = parse(readText('deploy/grafana/provisioning/dashboards/lorikeet.yaml'))
    const { services } = parse(readText('docker-compose.yml'), { merge: true })
    assert.ok(services.grafana.volumes.includes(`./deploy/grafana/dashboards:${providers[0].options.path}:ro`))
    const { configMapGenerator } = parse(readText('deploy/grafana/kustomization.yaml'))
    assert.deepEqual(
      [...configMapGenerator[0].files].sort(),
      boards.map((board) => `dashboards/${board.file}`),
    )
    const { datasources } = parse(readText('deploy/grafana/provisioning/datasources/prometheus.yaml'))
    assert.equal(datasources[0].uid, boards[0]!.templating.list[0]!.type === 'datasource' ? 'prometheus' : null)
  })
})

describe('rules', () => {
  it('ask only for series and labels that /metrics has', () => {
    const wrong = rules.flatMap(({ record, alert, expr }) => unknownParts(expr).map((part) => `${record ?? alert}: ${part}`))
    assert.deepEqual(wrong, [])
  })

  it('are each tested in rules.test.yml', () => {
    const tests = readText('deploy/prometheus/rules.test.yml')
    const untested = rules.map(({ record, alert }) => record ?? alert ?? '').filter((name) => !tests.includes(name))
    assert.deepEqual(
      untested.filter((name) => name !== 'model_name:vllm_time_to_first_token_seconds:p95_5m'),
      [],
      'the exception is tested through LorikeetSlowFirstToken',
    )
  })
})

describe("vLLM's boards", () => {
  it('find every series and label that they ask for', () => {
    const queries = [...vllmBoardQueries('$model_name', '$__rate_interval', '$__range'), ...vllmFleetQueries('5m', '1h')]
    assert.ok(queries.length > 150)
    assert.deepEqual(
      queries.flatMap((query) => unknownParts(query).map((part) => `${query}: ${part}`)),
      [],
    )
    for (const family of VLLM_MODEL_VARIABLES) assert.deepEqual(unknownParts(`sum by (model_name) (${family})`), [])
  })

  it('show nothing in rows about features that are not here', () => {
    for (const name of ABSENT_FAMILIES) assert.ok(!known.has(name), `${name} exists now: ask for it in vllm-fleet-boards.ts`)
  })
})
