// A line over the last samples, drawn by hand: a chart library would be larger than the rest of the page.

import { find } from './dom.ts'
import { HISTORY_SAMPLES } from './engine-history.ts'

/** Units of the view box; the SVG is stretched to its place. */
const HEIGHT = 32
/** Half a line's width, so that neither a zero nor a peak is cut off. */
const MARGIN = 1.5

export class Sparkline {
  readonly #line: SVGPathElement
  readonly #area: SVGPathElement
  readonly #minimumTop: number

  /** `minimumTop` is the smallest full height, so that noise around zero stays small. */
  constructor(svg: SVGSVGElement, minimumTop: number) {
    svg.setAttribute('viewBox', `0 0 ${HISTORY_SAMPLES - 1} ${HEIGHT}`)
    svg.setAttribute('preserveAspectRatio', 'none')
    this.#area = find(svg, '.spark-area', SVGPathElement)
    this.#line = find(svg, '.spark-line', SVGPathElement)
    this.#minimumTop = minimumTop
  }

  /** Oldest first; the newest stands at the right edge. Unknown values leave gaps. */
  draw(values: readonly (number | null)[]): void {
    const top = Math.max(this.#minimumTop, ...values.map((value) => value ?? 0))
    const firstX = HISTORY_SAMPLES - values.length
    const y = (value: number) => HEIGHT - MARGIN - (value / top) * (HEIGHT - 2 * MARGIN)
    const lines: string[] = []
    const areas: string[] = []
    for (const [start, run] of runs(values)) {
      const points = run.map((value, index) => `${firstX + start + index} ${y(value).toFixed(2)}`)
      lines.push(`M${points.join('L')}`)
      areas.push(`M${firstX + start} ${HEIGHT}L${points.join('L')}L${firstX + start + run.length - 1} ${HEIGHT}Z`)
    }
    this.#line.setAttribute('d', lines.join(''))
    this.#area.setAttribute('d', areas.join(''))
  }
}

/** Stretches of known values with the index each starts at. */
function runs(values: readonly (number | null)[]): readonly (readonly [start: number, run: readonly number[]])[] {
  const found: [number, number[]][] = []
  for (const [index, value] of values.entries()) {
    if (value === null) continue
    const last = found.at(-1)
    if (last !== undefined && last[0] + last[1].length === index) last[1].push(value)
    else found.push([index, [value]])
  }
  return found
}
