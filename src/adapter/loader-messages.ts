// Every message between the engine thread and the loader thread. Plain data; weights travel as transferred buffers.

import type { WireError } from '../errors.ts'
import type { AdapterMember } from './adapter-generation.ts'
import type { CompiledAdapter } from './primitive.ts'

export interface LoadRequest {
  readonly callId: number
  readonly adapterId: number
  readonly name: string
  readonly path: string
  /** Of a mixture, which has no path. */
  readonly members: readonly AdapterMember[] | null
}

export type LoadReply =
  | {
      readonly type: 'loaded'
      readonly callId: number
      readonly adapter: CompiledAdapter
      readonly warnings: readonly string[]
    }
  | { readonly type: 'failed'; readonly callId: number; readonly error: WireError }

/** `workerData` of the loader thread. */
export interface LoaderWorkerData {
  readonly modelPath: string
}
