// Cleartext, TLS, or TLS in which clients show a certificate too.

import { readFileSync } from 'node:fs'
import { ServerCredentials } from '@grpc/grpc-js'
import type { GrpcTlsConfig } from '../../config.ts'
import { LorikeetError } from '../../errors.ts'

/** Throws CONFIG_INVALID naming the option whose file cannot be used. */
export function serverCredentials(tls: GrpcTlsConfig | null): ServerCredentials {
  if (tls === null) return ServerCredentials.createInsecure()
  const pair = { cert_chain: readPem('--grpc-tls-cert', tls.certFile), private_key: readPem('--grpc-tls-key', tls.keyFile) }
  const clientCa = tls.clientCaFile === null ? null : readPem('--grpc-tls-client-ca', tls.clientCaFile)
  try {
    return ServerCredentials.createSsl(clientCa, [pair], clientCa !== null)
  } catch (error) {
    throw invalid('--grpc-tls-cert', error)
  }
}

function readPem(option: string, file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw invalid(option, error)
  }
}

function invalid(option: string, error: unknown): LorikeetError {
  const reason = error instanceof Error ? error.message : String(error)
  return new LorikeetError('CONFIG_INVALID', { option, reason }, { cause: error })
}
