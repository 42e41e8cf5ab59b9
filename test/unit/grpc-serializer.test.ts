import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GenerateStreamResponse } from '../../src/server/grpc/generated/lorikeet/v1/inference.ts'
import { messageSerializer } from '../../src/server/grpc/message-serializer.ts'

const delta = (text: string): GenerateStreamResponse => ({
  event: { $case: 'delta', delta: { index: 1, text, tokenIds: [7, 300], logprobs: [] } },
})

test('messages of one serializer are those of the generated code, and stay what they were', () => {
  const serialize = messageSerializer(GenerateStreamResponse.encode)
  const texts = ['a', 'déjà 🙂', '', 'x'.repeat(100_000), 'b']
  const encoded = texts.map((text) => serialize(delta(text)))
  texts.forEach((text, i) => {
    assert.deepEqual(encoded[i], Buffer.from(GenerateStreamResponse.encode(delta(text)).finish()))
    assert.deepEqual(GenerateStreamResponse.decode(encoded[i]!), delta(text))
  })
})

test('a message that cannot be encoded leaves nothing behind', () => {
  const serialize = messageSerializer(GenerateStreamResponse.encode)
  const broken = delta('half')
  assert.ok(broken.event?.$case === 'delta')
  broken.event.delta.tokenIds = [1, -5]
  assert.throws(() => serialize(broken))
  assert.deepEqual(GenerateStreamResponse.decode(serialize(delta('whole'))), delta('whole'))
})
