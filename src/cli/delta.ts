import { parseArgs } from 'node:util'
import { makeDelta } from '../adapter/formats/delta/make-delta.ts'
import { LorikeetError } from '../errors.ts'
import { openModel } from '../model/open-model.ts'
import { formatBytes } from './byte-size.ts'

/** Throws CONFIG_INVALID naming the option, or DELTA_IMPOSSIBLE. */
export function runDelta(args: readonly string[]): string {
  const { base, tuned, out, kind, percent } = readOptions(args)
  const summary = makeDelta({ base: openModel(base), tuned: openModel(tuned), out, topKPercent: percent, kind })
  const kept = summary.numKept === summary.numChanged ? '' : `, ${summary.numKept} of them kept`
  return `${out}: ${summary.numTensors} tensors, ${formatBytes(summary.numBytes)}; ${summary.numChanged} values differ${kept}\n`
}

function readOptions(args: readonly string[]) {
  const invalid = (option: string, reason: string) => new LorikeetError('CONFIG_INVALID', { option, reason })
  const text = { type: 'string' } as const
  const { values } = parse(() =>
    parseArgs({ args: [...args], options: { base: text, tuned: text, out: text, kind: text, 'top-k-percent': text } }),
  )
  const { base, tuned, out, kind = 'delta', 'top-k-percent': share } = values
  if (base === undefined) throw invalid('--base', 'is missing; it names the directory of the base model')
  if (tuned === undefined) throw invalid('--tuned', 'is missing; it names the directory of the tuned model')
  if (out === undefined) throw invalid('--out', 'is missing; it names the directory to write')
  if (kind === '') throw invalid('--kind', 'is empty')
  const percent = share === undefined ? null : Number(share)
  if (percent !== null && !(percent > 0 && percent <= 100)) throw invalid('--top-k-percent', `${share} is not a percentage`)
  return { base, tuned, out, kind, percent }

  function parse<T>(read: () => T): T {
    try {
      return read()
    } catch (cause) {
      throw invalid('lorikeet delta', cause instanceof Error ? cause.message : String(cause))
    }
  }
}
