// The committed Grafana boards as tests read them.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './server-process.ts'

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } }
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string; readonly refId: string }[]
}

export interface Dashboard {
  readonly file: string
  readonly uid: string
  readonly title: string
  readonly panels: readonly Panel[]
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string; readonly definition?: string }[]
  }
}

export const DASHBOARD_FOLDER = join(ROOT, 'deploy/grafana/dashboards')

export const readDashboards = (): readonly Dashboard[] =>
  readdirSync(DASHBOARD_FOLDER)
    .sort()
    .map((file) => ({ file, ...(JSON.parse(readFileSync(join(DASHBOARD_FOLDER, file), 'utf8')) as Omit<Dashboard, 'file'>) }))

export interface BoardQuery {
  /** Board and panel, for messages. */
  readonly where: string
  readonly expr: string
}

/** Every expression of every panel. */
export const boardQueries = (boards: readonly Dashboard[]): readonly BoardQuery[] =>
  boards.flatMap(({ file, panels }) =>
    panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ where: `${file}: ${title}`, expr }))),
  )

/** What Grafana puts in before it asks: every choice is All. */
export const interpolate = (expr: string, rateInterval: string, range: string): string =>
  expr
    .replaceAll('$__rate_interval', rateInterval)
    .replaceAll('$__range', range)
    .replace(/\$(?:model_name|instance|adapter)\b/g, '.+')

/** `label_values(selector, label)` of a variable. */
export function labelValues(definition: string): { readonly selector: string; readonly label: string } {
  const [, selector = '', label = ''] = /^label_values\((.*),\s*(\w+)\)$/s.exec(definition) ?? []
  return { selector, label }
}
