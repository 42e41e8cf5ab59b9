// Keys in the metadata, checked before a message is read.

import {
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServerListener,
  ServerListenerBuilder,
} from '@grpc/grpc-js'
import type { Logger } from 'pino'
import type { ApiKeys } from '../generation/api-keys.ts'
import { randomId } from '../generation/response-id.ts'
import { toFailure } from './grpc-error.ts'

// Like /health and /version over REST: they cost nothing and change nothing, and probes have no key.
const OPEN_PATHS = [
  '/grpc.health.v1.Health/',
  '/grpc.reflection.',
  '/inference.GRPCInferenceService/ServerLive',
  '/inference.GRPCInferenceService/ServerReady',
  '/inference.GRPCInferenceService/ServerMetadata',
] as const

/** Ends calls without a known key with UNAUTHENTICATED. */
export function authenticate(keys: ApiKeys, logger: Logger): ServerInterceptor {
  return (method, call) => {
    if (OPEN_PATHS.some((path) => method.path.startsWith(path))) return new ServerInterceptingCall(call)
    const listener = new ServerListenerBuilder().withOnReceiveMetadata((metadata, next) => {
      try {
        keys.check(metadata.get('authorization')[0]?.toString())
      } catch (thrown) {
        call.sendStatus(toFailure(thrown, randomId(), logger))
        return
      }
      next(metadata)
    })
    const built: ServerListener = listener.build()
    return new ServerInterceptingCall(call, new ResponderBuilder().withStart((next) => next(built)).build())
  }
}
