// SIGTERM or SIGINT begins an orderly end; the next one ends at once.

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
