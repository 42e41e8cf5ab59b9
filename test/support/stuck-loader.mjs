// A loader thread that is busy, without ever yielding, until the test lets it go: then it refuses what it was asked for.
import { parentPort, workerData } from 'node:worker_threads'

const gate = new Int32Array(workerData.gate)
parentPort.on('message', ({ callId, name }) => {
  Atomics.store(gate, 1, 1)
  Atomics.notify(gate, 1)
  Atomics.wait(gate, 0, 0)
  const params = { name, field: 'r', reason: 'of the test' }
  parentPort.postMessage({ type: 'failed', callId, error: { code: 'ADAPTER_REFUSED', params, field: null } })
})
