import { type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { LogConfig } from '../config.ts'

export type LogFormat = 'pretty' | 'json'

export function logFormat(config: LogConfig, isTerminal: boolean): LogFormat {
  if (config.format !== 'auto') return config.format
  return isTerminal ? 'pretty' : 'json'
}

/** Logs on standard output: coloured lines for people, JSON lines for collectors. Writes are synchronous, so a crash loses none. */
export function createLogger(config: LogConfig, format: LogFormat, isTerminal: boolean): Logger {
  const options = { level: config.level }
  if (format === 'json') return pino({ ...options, base: null }, pino.destination({ dest: 1, sync: true }))
  const stream = pretty({
    colorize: isTerminal,
    ignore: 'pid,hostname',
    translateTime: 'SYS:HH:MM:ss',
    singleLine: true,
    sync: true,
  })
  return pino(options, stream)
}
