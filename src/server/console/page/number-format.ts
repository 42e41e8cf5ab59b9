// Numbers as people read them. One locale, that of the page's language.

const GROUPED = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const COMPACT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })
const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const
const KIB = 1024

/** Where groups of digits become longer than a tile is wide. */
const COMPACT_FROM = 100_000

export function formatCount(count: number): string {
  return count < COMPACT_FROM ? GROUPED.format(count) : COMPACT.format(count)
}

/** One digit behind the point below ten, so that slow models show a difference. */
export function formatRate(perSecond: number): string {
  return perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : formatCount(Math.round(perSecond))
}

export function formatBytes(bytes: number): string {
  const power = bytes < KIB ? 0 : Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log(bytes) / Math.log(KIB)))
  const value = bytes / KIB ** power
  return `${power > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} ${BYTE_UNITS[power]}`
}

export function formatMs(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`
}

export function formatPercent(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`
}
