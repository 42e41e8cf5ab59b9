// SIGTERM or SIGINT begins an orderly end; the next one ends at once. So does the loss of the npm that started the server.

import { constants } from 'node:os'

type Signal = 'SIGINT' | 'SIGTERM'

/** The part of `process` that signals need. */
export interface SignalSource {
  on(signal: Signal, listener: (signal: Signal) => void): unknown
}

// Ctrl-C reaches every process of the terminal, and npm hands the signal it got on to its child: one key press is two signals.
const ECHO_MS = 250

/** `begin` is called with the first signal, `end` with the exit status at the second (128 + its number, as shells count). */
export function onTermination(
  source: SignalSource,
  begin: (signal: Signal) => void,
  end: (status: number) => void,
  now: () => number = () => performance.now(),
): void {
  let begunAtMs: number | null = null
  const listener = (signal: Signal): void => {
    if (begunAtMs === null) {
      begunAtMs = now()
      begin(signal)
    } else if (now() - begunAtMs > ECHO_MS) {
      end(128 + constants.signals[signal])
    }
  }
  source.on('SIGINT', listener)
  source.on('SIGTERM', listener)
}

const PARENT_CHECK_MS = 250

/**
 * Calls `begin` once when the parent process is gone, if that was a shell of `npm start`: npm hands SIGTERM to its shell, and
 * a shell that does not replace itself (dash) dies of it without telling anyone.
 */
export function onLostNpm(env: Readonly<Record<string, string | undefined>>, parentId: () => number, begin: () => void): void {
  if (env['npm_lifecycle_event'] === undefined) return
  const first = parentId()
  const timer = setInterval(() => {
    if (parentId() === first) return
    clearInterval(timer)
    begin()
  }, PARENT_CHECK_MS)
}
