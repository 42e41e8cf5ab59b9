// Entry of a client process of a fleet: waits for its job, sends its share, hands the raw records back.
import { asLorikeetError } from '../../src/errors.ts'
import { type FromClient, PROGRESS_MS, type ToClient } from './load-fleet.ts'
import { prepareShard, type SendLoad } from './load-shard.ts'
import { createProgress } from './run-load.ts'

const abort = new AbortController()
const send = (message: FromClient): void => {
  process.send?.(message)
}

let sendLoad: SendLoad | null = null

async function answer(message: ToClient): Promise<void> {
  if (message.kind === 'abort') abort.abort()
  else if (message.kind === 'prepare') {
    sendLoad = await prepareShard(message.job)
    send({ kind: 'ready' })
  } else if (sendLoad !== null) {
    const progress = createProgress()
    const meter = setInterval(() => {
      send({ kind: 'progress', progress: { ...progress, recentTtftsS: progress.recentTtftsS.splice(0) } })
    }, PROGRESS_MS)
    const result = await sendLoad(message.startEpochMs, abort.signal, progress)
    clearInterval(meter)
    send({ kind: 'result', result })
  }
}

process.on('message', (message: ToClient) => {
  answer(message).catch((error: unknown) => send({ kind: 'failed', error: asLorikeetError(error).toWire() }))
})
// A terminal sends Ctrl-C to the whole group; the parent decides what it means.
process.on('SIGINT', () => undefined)
process.on('disconnect', () => process.exit())
