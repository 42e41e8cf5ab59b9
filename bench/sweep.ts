// Runs over every combination of settings; a rate stops rising once too few requests are served in time. And the bisection
// for the highest rate that meets the limits.
import { LorikeetError } from '../src/errors.ts'
import type { BenchResult } from './metrics/bench-result.ts'
import type { BenchOptions } from './options.ts'
import { requireServerCommand, type Session } from './session.ts'

interface Dimension {
  /** A flag of the bench without dashes, or `server.` and a flag of the server. */
  readonly flag: string
  readonly values: readonly string[]
}

/** Reads `request-rate=1,2,4`; a value with commas cannot be swept. */
export function parseDimension(text: string): Dimension {
  const split = text.indexOf('=')
  const values = text.slice(split + 1).split(',')
  if (split < 1 || values.some((value) => value === '')) {
    throw new LorikeetError('CONFIG_INVALID', { option: '--over', reason: `${text}: use FLAG=A,B,...` })
  }
  return { flag: text.slice(0, split).replace(/^--/, ''), values }
}

interface Setting {
  readonly name: string
  readonly args: readonly string[]
  readonly serverArgs: string
  /** Settings of one group differ only in rate and come in rising order. */
  readonly group: string
}

/** Every combination. Server flags change slowest, because each change is a restart; the rate fastest, because it may stop. */
export function combinations(dimensions: readonly Dimension[]): readonly Setting[] {
  const rank = ({ flag }: Dimension): number => (flag.startsWith('server.') ? 0 : flag === 'request-rate' ? 2 : 1)
  const ordered = [...dimensions].sort((a, b) => rank(a) - rank(b))
  let settings: Setting[] = [{ name: '', args: [], serverArgs: '', group: '' }]
  for (const { flag, values } of ordered) {
    const isRate = flag === 'request-rate'
    const sorted = isRate ? [...values].sort((a, b) => Number(a) - Number(b)) : values
    settings = settings.flatMap((setting) =>
      sorted.map((value): Setting => {
        const isServer = flag.startsWith('server.')
        return {
          name: `${setting.name} ${flag}=${value}`.trim(),
          args: isServer ? setting.args : [...setting.args, `--${flag}=${value}`],
          serverArgs: isServer ? `${setting.serverArgs} --${flag.slice('server.'.length)} ${value}` : setting.serverArgs,
          group: isRate ? setting.group : `${setting.group} ${flag}=${value}`,
        }
      }),
    )
  }
  return settings
}

/** Share of requests served in time: within the user's limits, or S-LoRA's six seconds where there are none. */
export function attained(result: BenchResult): number {
  return result.lorikeet.attainment.slo ?? result.lorikeet.attainment.slora
}

/** Runs the sweep; results are in the session. */
export async function runSweep(options: BenchOptions, session: Session, say: (line: string) => void): Promise<void> {
  const settings = combinations(options.over.map(parseDimension))
  const command = options['start-server']
  if (settings.some(({ serverArgs }) => serverArgs !== '')) requireServerCommand(command, 'a sweep over server flags')
  const stopped = new Set<string>()
  for (const { name, args, serverArgs, group } of settings) {
    if (session.isInterrupted) return
    if (stopped.has(group)) continue
    const share = await runRepeats(options, session, name, args, command === null ? undefined : command + serverArgs)
    if (share < options['min-attainment']) {
      stopped.add(group)
      say(`${name}: ${(share * 100).toFixed(1)} % in time, under ${options['min-attainment'] * 100} %: no higher rate is tried`)
    }
  }
}

/** Mean share in time over the repeats of one setting. */
async function runRepeats(
  options: BenchOptions,
  session: Session,
  name: string,
  args: readonly string[],
  command: string | undefined,
): Promise<number> {
  let sum = 0
  for (let repeat = 0; repeat < options.repeat; repeat += 1) {
    const seedArgs = options.repeat > 1 ? [`--seed=${options.seed + repeat}`] : []
    const label = options.repeat > 1 ? `${name} seed=${options.seed + repeat}`.trim() : name
    sum += attained(await session.run(label, [...args, ...seedArgs], command))
  }
  return sum / options.repeat
}

/** Bisection ends when the bracket is this narrow, relative. */
const RATE_PRECISION = 0.05

/** Doublings before the search gives up: 2^16 times the first rate is no server. */
const MAX_DOUBLINGS = 16

/**
 * The highest rate at which the share in time stays at or above `--min-attainment`: doubles from `--request-rate` (or 1)
 * until it fails, halves down to where it holds, then bisects. Null when not even a 64th of the first rate holds.
 */
export async function findMaxRate(
  options: BenchOptions,
  session: Session,
  say: (line: string) => void,
): Promise<number | null> {
  const holds = async (rate: number): Promise<boolean> => {
    const share = await runRepeats(options, session, `request-rate=${rate}`, [`--request-rate=${rate}`], undefined)
    const isHeld = share >= options['min-attainment']
    say(`${rate} req/s: ${(share * 100).toFixed(1)} % in time, ${isHeld ? 'holds' : 'does not hold'}`)
    return isHeld
  }
  return await bisectRate(options['request-rate'] ?? 1, holds, () => session.isInterrupted)
}

const MAX_HALVINGS = 6

/** Pure search, so that it can be tested without a server. Rates are rounded to four digits to keep names short. */
export async function bisectRate(
  first: number,
  holds: (rate: number) => Promise<boolean>,
  isInterrupted: () => boolean,
): Promise<number | null> {
  const tidy = (rate: number): number => Number(rate.toPrecision(4))
  let low: number | null = null
  let high: number | null = null
  let rate = tidy(first)
  for (let step = 0; step < MAX_DOUBLINGS && (low === null || high === null); step += 1) {
    if (isInterrupted() || (low === null && step > MAX_HALVINGS)) return low
    if (await holds(rate)) low = rate
    else high = rate
    rate = tidy(high === null ? rate * 2 : rate / 2)
  }
  while (low !== null && high !== null && high / low > 1 + RATE_PRECISION && !isInterrupted()) {
    const middle = tidy((low + high) / 2)
    if (await holds(middle)) low = middle
    else high = middle
  }
  return low
}
