// Server reflection from the descriptors that npm run proto writes.

import { readFileSync } from 'node:fs'
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import type { Server } from '@grpc/grpc-js'
import { ReflectionService } from '@grpc/reflection'
import { invariant } from '../../core/invariant.ts'

type PackageDefinition = ConstructorParameters<typeof ReflectionService>[0]

/** Adds grpc.reflection.v1 and v1alpha, which list every service of proto/. */
export function addReflection(server: Server): void {
  const set = readFileSync(new URL('./generated/descriptors.binpb', import.meta.url))
  // Of a package definition the reflection service reads the descriptors only.
  const definition = { descriptors: { fileDescriptorProtos: filesOf(set) } } as unknown as PackageDefinition
  new ReflectionService(definition).addToServer(server)
}

/** The entries of a FileDescriptorSet, still encoded: `repeated FileDescriptorProto file = 1`. */
function filesOf(set: Buffer): Buffer[] {
  const reader = new BinaryReader(set)
  const files: Buffer[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    invariant(field === 1 && wireType === WireType.LengthDelimited, 'a FileDescriptorSet holds files only')
    files.push(Buffer.from(reader.bytes()))
  }
  return files
}
