// Grafana panels from the few facts that differ between ours; everything else is set here once.

const DATASOURCE = { type: 'prometheus', uid: '$datasource' }
const COLUMNS = 24

/** Steps of a threshold scale: [colour, from this value], the first without a bound. */
const steps = (scale) => scale.map(([color, value]) => ({ color, value: value ?? null }))

const targets = (queries) =>
  queries.map(([expr, legend = '__auto', extra = {}], index) => ({
    refId: String.fromCharCode(65 + index),
    datasource: DATASOURCE,
    expr,
    legendFormat: legend,
    range: true,
    ...extra,
  }))

const base = (type, { title, description, unit, queries, width = 8, height = 8 }) => ({
  type,
  title,
  description,
  datasource: DATASOURCE,
  targets: targets(queries),
  fieldConfig: { defaults: { unit }, overrides: [] },
  gridPos: { w: width, h: height },
})

/** Lines over time. `stack` piles them up; `scale` draws its bounds as lines; `max` pins the axis. */
export function lines({ stack = false, scale, max, ...facts }) {
  const panel = base('timeseries', facts)
  panel.fieldConfig.defaults = {
    ...panel.fieldConfig.defaults,
    min: 0,
    ...(max === undefined ? {} : { max }),
    color: { mode: 'palette-classic' },
    custom: {
      drawStyle: 'line',
      lineWidth: 1,
      fillOpacity: stack ? 40 : 8,
      showPoints: 'never',
      spanNulls: false,
      stacking: { mode: stack ? 'normal' : 'none', group: 'A' },
      thresholdsStyle: { mode: scale === undefined ? 'off' : 'dashed' },
    },
    thresholds: { mode: 'absolute', steps: steps(scale ?? [['green']]) },
  }
  panel.options = {
    legend: { displayMode: 'table', placement: 'bottom', showLegend: true, calcs: ['mean', 'max', 'lastNotNull'] },
    tooltip: { mode: 'multi', sort: 'desc' },
  }
  return panel
}

/** One number with its recent course behind it. */
export function stat({ scale = [['blue']], decimals, ...facts }) {
  const panel = base('stat', { width: 3, height: 4, ...facts })
  panel.fieldConfig.defaults = {
    ...panel.fieldConfig.defaults,
    ...(decimals === undefined ? {} : { decimals }),
    noValue: 'no traffic',
    color: { mode: 'thresholds' },
    thresholds: { mode: 'absolute', steps: steps(scale) },
    mappings: [{ type: 'special', options: { match: 'nan', result: { text: 'no traffic', index: 0 } } }],
  }
  panel.options = {
    colorMode: scale.length > 1 ? 'value' : 'none',
    graphMode: 'area',
    reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
    textMode: 'value',
  }
  return panel
}

/** A used share of a budget as a bar. */
export function bars({ scale, max = 1, ...facts }) {
  const panel = base('bargauge', { width: 6, height: 4, ...facts })
  panel.fieldConfig.defaults = {
    ...panel.fieldConfig.defaults,
    min: 0,
    max,
    thresholds: { mode: 'absolute', steps: steps(scale) },
  }
  panel.options = {
    displayMode: 'lcd',
    orientation: 'horizontal',
    reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
  }
  return panel
}

/** Buckets of a histogram over time. */
export function heatmap(facts) {
  const panel = base('heatmap', facts)
  panel.targets = panel.targets.map((target) => ({ ...target, format: 'heatmap', legendFormat: '{{le}}' }))
  panel.options = {
    calculate: false,
    cellGap: 1,
    color: { mode: 'scheme', scheme: 'Oranges', exponent: 0.5, steps: 64, min: 0 },
    filterValues: { le: 1e-9 },
    legend: { show: true },
    tooltip: { mode: 'single', yHistogram: true },
    yAxis: { unit: facts.unit, axisPlacement: 'left' },
  }
  return panel
}

/** Instant values joined to one row for each value of `by`. Columns: query index to title, unit. */
export function table({ by, columns, hidden = [], ...facts }) {
  const panel = base('table', { unit: 'short', ...facts })
  panel.targets = panel.targets.map((target) => ({ ...target, format: 'table', instant: true, range: false }))
  panel.transformations = [
    ...(columns.length > 1 ? [{ id: 'joinByField', options: { byField: by, mode: 'outer' } }] : []),
    { id: 'filterFieldsByName', options: { exclude: { pattern: ['^Time.*', '^__name__.*', ...hidden].join('|') } } },
  ]
  const valueName = (index) => (columns.length > 1 ? `Value #${String.fromCharCode(65 + index)}` : 'Value')
  panel.fieldConfig.overrides = columns.map(([title, unit], index) => ({
    matcher: { id: 'byName', options: valueName(index) },
    properties: [
      { id: 'displayName', value: title },
      { id: 'unit', value: unit },
    ],
  }))
  panel.options = { showHeader: true, cellHeight: 'sm' }
  return panel
}

/** A multi-value variable over the values of a label. Without `allValue`, All means every value of the list. */
export const variable = (name, label, query, allValue) => ({
  type: 'query',
  name,
  label,
  datasource: DATASOURCE,
  definition: query,
  query: { query, refId: `variable-${name}` },
  refresh: 2,
  sort: 1,
  multi: true,
  includeAll: true,
  ...(allValue === undefined ? {} : { allValue }),
  current: { text: ['All'], value: ['$__all'] },
})

/** Rows of [title, panels] on the grid: panels flow from left to right and wrap. */
function placed(rows) {
  const panels = []
  let top = 0
  for (const [title, content] of rows) {
    panels.push({ type: 'row', title, collapsed: false, panels: [], gridPos: { x: 0, y: top, w: COLUMNS, h: 1 } })
    top += 1
    let [left, height] = [0, 0]
    for (const panel of content) {
      if (left + panel.gridPos.w > COLUMNS) {
        top += height
        left = 0
        height = 0
      }
      panels.push({ ...panel, gridPos: { x: left, y: top, w: panel.gridPos.w, h: panel.gridPos.h } })
      left += panel.gridPos.w
      height = Math.max(height, panel.gridPos.h)
    }
    top += height
  }
  return panels.map((panel, index) => ({ id: index + 1, ...panel }))
}

/** Leads to the other boards and keeps what was chosen. */
const LINKS = [
  {
    type: 'dashboards',
    title: 'Lorikeet',
    tags: ['lorikeet'],
    icon: 'external link',
    tooltip: '',
    url: '',
    asDropdown: false,
    includeVars: true,
    keepTime: true,
    targetBlank: false,
  },
]

/** Without a current one, Grafana takes its default. */
const DATASOURCE_VARIABLE = {
  type: 'datasource',
  name: 'datasource',
  label: 'Data source',
  query: 'prometheus',
  refresh: 1,
  current: {},
}

/** A dashboard; `rows` are [title, panels]. */
export const dashboard = ({ uid, title, description, variables, rows }) => ({
  uid,
  title,
  description,
  tags: ['lorikeet'],
  editable: true,
  graphTooltip: 1,
  schemaVersion: 39,
  refresh: '10s',
  time: { from: 'now-30m', to: 'now' },
  timezone: 'browser',
  links: LINKS,
  templating: { list: [DATASOURCE_VARIABLE, ...variables] },
  panels: placed(rows),
})
