import { LorikeetError } from '../../src/errors.ts'
import type { BenchOptions } from '../options.ts'
import type { Session } from '../session.ts'
import { CHURN, MIXED_KINDS, MIXED_RANKS, POPULARITY, SKEW } from './adapter-presets.ts'
import { IDENTITY, SHARED_PREFIX } from './identity-presets.ts'
import type { Preset, PresetBench, Verdict } from './preset.ts'
import { ADAPTER_COUNT, BASE_TAX, MEMORY_PRESSURE, PERCENT_OF_BASE } from './throughput-presets.ts'

export const PRESETS: readonly Preset[] = [
  BASE_TAX,
  PERCENT_OF_BASE,
  ADAPTER_COUNT,
  MEMORY_PRESSURE,
  CHURN,
  SKEW,
  POPULARITY,
  MIXED_RANKS,
  MIXED_KINDS,
  SHARED_PREFIX,
  IDENTITY,
]

export function formatPresets(): string {
  const lines = PRESETS.map(
    ({ id, name, title, bar }) => `${id.padEnd(4)}--preset ${name.padEnd(16)} ${title}\n${' '.repeat(30)}pass bar: ${bar}\n`,
  )
  return `${lines.join('')}Lengths, rates and numbers of adapters are scaled to the model and the adapters served.\n`
}

/** Runs a recipe, named or by its number. */
export async function runPreset(name: string, options: BenchOptions, session: Session): Promise<readonly Verdict[]> {
  const preset = PRESETS.find((known) => known.name === name || known.id.toLowerCase() === name.toLowerCase())
  if (preset === undefined) {
    throw new LorikeetError('CONFIG_INVALID', {
      option: '--preset',
      reason: `${name}: use one of ${PRESETS.map((known) => known.name).join(', ')}`,
    })
  }
  const context = await session.open()
  const asked = options.adapters.filter((adapter) => adapter !== 'all' && adapter !== 'none')
  const adapters = asked.length > 0 ? asked : context.server.adapters
  const bench: PresetBench = {
    context,
    adapters,
    serverCommand: options['start-server'],
    numPrompts: (suggested) => String(options['num-prompts'] ?? suggested),
    slots: (suggested) => options['resident-adapters'] ?? Math.max(1, Math.min(suggested, Math.floor(adapters.length / 4))),
    lengths: (inputLen, outputLen) => {
      const scale = Math.min(1, (context.server.maxModelLen ?? Number.POSITIVE_INFINITY) / (inputLen + outputLen))
      return [`--input-len=${inputLen}`, `--output-len=${outputLen}`, `--length-scale=${scale.toPrecision(6)}`]
    },
    run: (label, args, command) => session.run(label, args, command),
  }
  return [{ passed: null, text: `${preset.id} ${preset.name}: ${preset.bar}` }, ...(await preset.run(bench))]
}

export function formatVerdict({ passed, text }: Verdict): string {
  return `${passed === null ? '    ' : passed ? 'PASS' : 'FAIL'}  ${text}`
}
