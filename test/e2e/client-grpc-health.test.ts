// A probe over gRPC, as Kubernetes and grpc-health-probe do it: no key, one call, and a watch that sees the end coming.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type ClientReadableStream, credentials, makeGenericClientConstructor, status } from '@grpc/grpc-js'
import { service } from 'grpc-health-check'
import { API_KEY, freePort, startClientServer } from '../support/client-server.ts'
import type { ServerProcess } from '../support/server-process.ts'

interface HealthStatus {
  readonly status: string
}

const Health = makeGenericClientConstructor(service, 'grpc.health.v1.Health')
let server: ServerProcess
let client: InstanceType<typeof Health>
before(async () => {
  const port = await freePort()
  server = await startClientServer('--grpc', '--grpc-port', String(port))
  client = new Health(`127.0.0.1:${port}`, credentials.createInsecure())
})
after(async () => {
  client.close()
  await server.stop()
})

function check(name: string): Promise<HealthStatus> {
  return new Promise((resolve, reject) => {
    client['check']?.call(client, { service: name }, (error: Error | null, answer: HealthStatus) => {
      if (error === null) resolve(answer)
      else reject(error)
    })
  })
}

test('the server and each of its services are serving', async () => {
  for (const name of ['', 'lorikeet.v1.Inference', 'lorikeet.v1.Adapters', 'inference.GRPCInferenceService']) {
    assert.equal((await check(name)).status, 'SERVING', name)
  }
  await assert.rejects(check('nobody'), { code: status.NOT_FOUND })
})

test('a watch hears of the end while a request is still answered', async () => {
  const watch = client['watch']?.call(client, { service: '' }) as ClientReadableStream<HealthStatus>
  const heard: string[] = []
  const ended = new Promise((resolve) => watch.once('close', resolve))
  watch.on('error', () => {})
  const first = new Promise((resolve) => watch.once('data', resolve))
  watch.on('data', (answer: HealthStatus) => heard.push(answer.status))
  await first
  assert.deepEqual(heard, ['SERVING'])
  const answer = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'One day', max_tokens: 200, ignore_eos: true, stream: true }),
  })
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader()
  await reader.read()
  server.signal('SIGTERM')
  let last = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    last = Buffer.from(value).toString()
  }
  assert.match(last, /\[DONE\]/)
  await ended
  assert.deepEqual(heard, ['SERVING', 'NOT_SERVING'])
  assert.equal(await server.ended(), 0)
})
