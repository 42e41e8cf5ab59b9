// Messages to bytes for streams of many small ones: the generated code takes a new writer and a further copy for each.

import { BinaryWriter } from '@bufbuild/protobuf/wire'

// A writer keeps the memory of its largest message; ordinary events have some fifty bytes.
const MAX_KEPT_BYTES = 65_536

/** A serializer as grpc-js takes it, on one writer. `encode` is that of a generated message. */
export function messageSerializer<Message>(
  encode: (message: Message, writer: BinaryWriter) => BinaryWriter,
): (message: Message) => Buffer {
  let kept: BinaryWriter | null = null
  return (message) => {
    const writer = kept ?? new BinaryWriter()
    // Whatever a message that cannot be encoded leaves behind goes with its writer.
    kept = null
    const bytes = encode(message, writer).finish()
    if (bytes.length <= MAX_KEPT_BYTES) kept = writer
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
}
