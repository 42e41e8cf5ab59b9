import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Config } from '../../src/config.ts'
import { workerLinks } from '../../src/engine/engine-link.ts'
import type { EngineEvent } from '../../src/engine/messages.ts'

/** Runs a thread of the given code until it ends; gives its events and why it ended. */
function runThread(code: string, command: boolean): Promise<{ events: EngineEvent[]; reason: string }> {
  const source = `import { parentPort, workerData } from 'node:worker_threads'; ${code}`
  return new Promise((resolve) => {
    const events: EngineEvent[] = []
    const links = workerLinks(new URL(`data:text/javascript,${encodeURIComponent(source)}`))
    const link = links(
      { config: {} as Config, firstAdapterId: 7 },
      { onEvent: (event) => events.push(event), onExit: (reason) => resolve({ events, reason }) },
    )
    if (command) link.post({ type: 'shutdown' })
  })
}

describe('workerLinks', () => {
  it('hands the start over and carries messages both ways', async () => {
    const echo = `parentPort.on('message', (command) => { parentPort.postMessage([workerData.firstAdapterId, command.type]); process.exit() })`
    const { events } = await runThread(echo, true)
    assert.deepEqual(events, [[7, 'shutdown']])
  })

  it('says why a thread ended: the error it threw, or its exit code', async () => {
    assert.match((await runThread(`throw new Error('no such device')`, false)).reason, /no such device/)
    assert.match((await runThread(`process.exit(3)`, false)).reason, /code 3/)
  })

  it('delivers what was sent just before the end', async () => {
    const { events } = await runThread(`parentPort.postMessage({ type: 'stopped' }); process.exit()`, false)
    assert.deepEqual(events, [{ type: 'stopped' }])
  })
})
