// The built engine thread, and a prompt that kills it: one that begins with token 13.
import { parentPort } from 'node:worker_threads'

parentPort.on('message', (command) => {
  if (command.type === 'add-request' && command.request.promptTokenIds[0] === 13) process.exit(7)
})
await import('../../dist/engine-thread.js')
