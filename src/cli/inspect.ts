import { parseArgs } from 'node:util'
import { type AdapterReport, inspectAdapter, type SiteGroup } from '../adapter/inspect.ts'
import { LorikeetError } from '../errors.ts'
import { openModel } from '../model/open-model.ts'
import { formatBytes } from './byte-size.ts'

/** Throws CONFIG_INVALID naming the option, or the error by which the adapter is refused. */
export function runInspect(args: readonly string[]): string {
  const { dir, model, isJson } = readOptions(args)
  const report = inspectAdapter(dir, openModel(model))
  return isJson ? `${JSON.stringify(report, null, 2)}\n` : format(dir, report)
}

function readOptions(args: readonly string[]) {
  const invalid = (option: string, reason: string) => new LorikeetError('CONFIG_INVALID', { option, reason })
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { model: { type: 'string' }, json: { type: 'boolean' } },
    })
    const [dir, second] = positionals
    if (dir === undefined || second !== undefined) throw invalid('ADAPTER_DIR', 'one adapter directory is inspected at a time')
    if (values.model === undefined) throw invalid('--model', 'is missing; what an adapter is depends on its base model')
    return { dir, model: values.model, isJson: values.json === true }
  } catch (cause) {
    if (cause instanceof LorikeetError) throw cause
    throw invalid('lorikeet inspect', cause instanceof Error ? cause.message : String(cause))
  }
}

function format(dir: string, report: AdapterReport): string {
  const { virtualTokens, invocationTokenIds } = report
  const facts: readonly (readonly [string, string] | null)[] = [
    ['kind', report.kind],
    ['digest', report.digest.slice(0, 16)],
    ['on the device', formatBytes(report.numBytes)],
    ['a token', `${formatCount(report.flops)}FLOP beside the base model's`],
    ['a step', `reads ${formatBytes(report.bytesRead)} for all tokens of this adapter`],
    virtualTokens === null
      ? null
      : ['virtual tokens', `${virtualTokens.numTokens}, ${virtualTokens.kind}, ${positionsText(virtualTokens.positions)}`],
    invocationTokenIds === null ? null : ['acts from', `the last ${invocationTokenIds.join(' ')} in the prompt`],
    ['base prefix cache', SHARING[report.sharesBaseKv]],
    report.promptCoupling === 'none' ? null : ['prompts', COUPLING[report.promptCoupling]],
  ]
  const lines = facts.flatMap((fact) => (fact === null ? [] : [`  ${fact[0].padEnd(18)} ${fact[1]}`]))
  const sites = report.sites.flatMap(siteLines)
  const warnings = report.warnings.map((warning) => `  warning: ${warning}`)
  return `${[dir, ...lines, ...(sites.length === 0 ? [] : ['  sites', ...sites]), ...warnings].join('\n')}\n`
}

const SHARING: Readonly<Record<AdapterReport['sharesBaseKv'], string>> = {
  always: 'shared: nothing here changes keys or values',
  'before activation': 'shared up to the invocation tokens',
  never: 'not shared',
}

const COUPLING: Readonly<Record<'length' | 'whole', string>> = {
  length: 'of one length share a prefix cache',
  whole: 'are computed in one step and share no prefix cache',
}

function positionsText(positions: string): string {
  return positions === 'shift' ? 'prompts start behind them' : 'prompts start at position 0'
}

function siteLines({ name, layers, primitives }: SiteGroup): readonly string[] {
  const where = layers.length === 0 ? name : `${name} (${rangesOf(layers)})`
  return primitives.map(({ kind, ranks, numBytes, flops }, i) => {
    const rank = ranks === null ? '' : ` rank ${ranks[0] === ranks[1] ? ranks[0] : `${ranks[0]} to ${ranks[1]}`}`
    const cost = flops === 0 ? '' : `, ${formatCount(flops)}FLOP`
    return `    ${(i === 0 ? where : '').padEnd(30)} ${kind}${rank}, ${formatBytes(numBytes)}${cost}`
  })
}

/** `0-3, 7` */
function rangesOf(layers: readonly number[]): string {
  const ranges: [number, number][] = []
  for (const layer of layers) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] + 1 === layer) last[1] = layer
    else ranges.push([layer, layer])
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ')
}

const PREFIXES = ['', 'k', 'M', 'G', 'T'] as const

function formatCount(count: number): string {
  let prefix = 0
  let size = count
  while (size >= 1000 && prefix < PREFIXES.length - 1) {
    size /= 1000
    prefix++
  }
  return `${prefix === 0 ? size : size.toPrecision(3)} ${PREFIXES[prefix]}`
}
