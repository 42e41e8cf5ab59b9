// What `lorikeet bench` and `lorikeet trace` run. The server's entry imports this file only when one of them is asked for.
import { asLorikeetError } from '../src/errors.ts'

/** Runs the command and gives the exit status; a fault is one line on stderr, never a stack. */
export async function runHarness(command: 'bench' | 'trace', args: readonly string[]): Promise<number> {
  const status = await runCommand(command, args)
  // The caller exits at once, which would cut what a slow pipe has not taken yet.
  await new Promise<void>((resolve) => process.stdout.write('', () => resolve()))
  return status
}

async function runCommand(command: 'bench' | 'trace', args: readonly string[]): Promise<number> {
  try {
    if (command === 'trace') return await (await import('./trace-command.ts')).runTrace(args)
    return await (await import('./bench-command.ts')).runBench(args)
  } catch (error) {
    const known = asLorikeetError(error)
    process.stderr.write(`lorikeet ${command}: ${known.message}\n`)
    if (known.code === 'INTERNAL' && known.cause instanceof Error) process.stderr.write(`${known.cause.stack}\n`)
    return 1
  }
}
