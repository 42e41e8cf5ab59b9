// Charts as SVG text, without a browser. The chart library is an optional dependency: only reports need it.
import { createRequire } from 'node:module'
import { LorikeetError } from '../../src/errors.ts'
import type { Chart } from './charts.ts'

interface ChartSize {
  readonly width: number
  readonly height: number
}

/** A picture as wide as the text of a README. */
export const README_SIZE: ChartSize = { width: 760, height: 320 }

/** Half a printed page: drawn small, so that its letters stay readable. */
export const FIGURE_SIZE: ChartSize = { width: 460, height: 250 }

type ECharts = typeof import('echarts')

export async function loadChartLibrary(): Promise<ECharts> {
  try {
    return await import('echarts')
  } catch (cause) {
    throw new LorikeetError(
      'BENCH_FAILED',
      { reason: 'reports need the optional package echarts: npm install echarts' },
      { cause },
    )
  }
}

export function renderSvg(library: ECharts, chart: Chart, size: ChartSize): string {
  const drawing = library.init(null, null, { renderer: 'svg', ssr: true, ...size })
  // Data is plain; the library's own option type is an open union that TypeScript cannot check from the outside.
  drawing.setOption({ ...chart.option, tooltip: { show: false } } as Parameters<typeof drawing.setOption>[0])
  const svg = drawing.renderToSVGString()
  drawing.dispose()
  return svg
}

/** The library's browser build with the chart kinds a report uses, to be inlined. */
export function chartLibraryFile(): string {
  return createRequire(import.meta.url).resolve('echarts/dist/echarts.common.min.js')
}
