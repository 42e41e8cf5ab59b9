// Adapters as lorikeet.v1 messages.

import type { AdapterInfo } from '../../engine/messages.ts'
import { type Adapter, AdapterState } from './generated/lorikeet/v1/adapters.ts'

const STATES = {
  registered: AdapterState.REGISTERED,
  loaded: AdapterState.HOST,
  active: AdapterState.DEVICE,
  pinned: AdapterState.DEVICE,
} as const

export function adapterMessage(info: AdapterInfo): Adapter {
  return {
    name: info.name,
    path: info.path,
    kind: info.kind,
    maxRank: info.maxRank,
    bytes: BigInt(info.numBytes),
    state: STATES[info.state],
    loadedAtMs: BigInt(Math.floor(info.loadedAtMs)),
    digest: info.digest,
  }
}

/** One of which the engine knows nothing yet, or nothing any more. */
export function unlistedAdapter(name: string, path: string, state: AdapterState): Adapter {
  return { name, path, kind: '', maxRank: 0, bytes: 0n, state, loadedAtMs: 0n, digest: '' }
}
