// Asks the server once a second how it is, while somebody looks.

import { EngineHistory } from './engine-history.ts'
import { readEngineSample } from './engine-sample.ts'
import { type ServerClient, ServerError } from './server-client.ts'

const INTERVAL_MS = 1000
/** A server that is away is asked less often. */
const RETRY_MS = 3000

export type ServerStatus = 'connecting' | 'ready' | 'unhealthy' | 'unreachable'

export interface EngineReport {
  readonly status: ServerStatus
  readonly history: EngineHistory
  /** Why the figures are old or missing; '' when they are neither. */
  readonly note: string
}

/** Starts the rounds; they end with the page. */
export function pollEngine(client: ServerClient, onReport: (report: EngineReport) => void): void {
  const history = new EngineHistory()
  const round = async () => {
    const report = document.hidden ? null : await look(client, history)
    if (report !== null) onReport(report)
    setTimeout(round, report === null || report.status !== 'unreachable' ? INTERVAL_MS : RETRY_MS)
  }
  void round()
}

async function look(client: ServerClient, history: EngineHistory): Promise<EngineReport> {
  const status = await healthOf(client)
  if (status === 'unreachable') return { status, history, note: 'The server cannot be reached.' }
  try {
    history.push(readEngineSample(await client.metrics(), performance.now()))
    return { status, history, note: status === 'ready' ? '' : 'The server answers no requests now.' }
  } catch (error) {
    const isGuarded = error instanceof ServerError && error.isKeyRefused
    return { status, history, note: isGuarded ? 'Metrics need the API key.' : 'The server sent no metrics.' }
  }
}

async function healthOf(client: ServerClient): Promise<ServerStatus> {
  try {
    await client.assertHealthy()
    return 'ready'
  } catch (error) {
    return error instanceof ServerError && error.status > 0 ? 'unhealthy' : 'unreachable'
  }
}
