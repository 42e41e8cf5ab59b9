// Serialises the few messages of onnx.proto (ONNX IR version 10) that a decoder graph needs. Field numbers are onnx.proto's.

import protobuf from 'protobufjs/minimal.js'

const { Writer } = protobuf
type Writer = protobuf.Writer

/** TensorProto.DataType. */
export const DATA_TYPES = { float32: 1, int32: 6, int64: 7, bool: 9, float16: 10, bfloat16: 16 } as const
export type DataType = keyof typeof DATA_TYPES

/** AttributeProto.AttributeType. */
const ATTRIBUTE_FLOAT = 1
const ATTRIBUTE_INT = 2
const ATTRIBUTE_STRING = 3
const ATTRIBUTE_INTS = 7

/** TensorProto.DataLocation.EXTERNAL. */
const LOCATION_EXTERNAL = 1

/** IR 10 is the oldest version whose opset 21 is what the graphs use; newer ones only add types. */
const IR_VERSION = 10
const ONNX_OPSET = 21
const CONTRIB_OPSET = 1

/** An integer attribute is written as INT, so a float attribute says so. */
export type AttributeValue = number | string | readonly number[] | { readonly float: number }

export interface NodeProto {
  readonly opType: string
  /** '' = ai.onnx, or com.microsoft. */
  readonly domain: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes: Readonly<Record<string, AttributeValue>>
}

/** The `external_data` entries of a tensor: location, offset, length and, in a file written by onnxruntime, its packed form. */
export type ExternalData = ReadonlyMap<string, string>

export interface InitializerProto {
  readonly name: string
  readonly dataType: DataType
  readonly dims: readonly number[]
  readonly data: Uint8Array | ExternalData
}

/** A named dimension is dynamic. */
export interface ValueProto {
  readonly name: string
  readonly dataType: DataType
  readonly dims: readonly (number | string)[]
}

export interface GraphProto {
  readonly name: string
  readonly nodes: readonly NodeProto[]
  readonly initializers: readonly InitializerProto[]
  readonly inputs: readonly ValueProto[]
  readonly outputs: readonly ValueProto[]
}

/** ModelProto bytes of one graph. */
export function encodeModel(graph: GraphProto): Uint8Array {
  const writer = new Writer()
  writer.uint32(tag(1, 0)).int64(IR_VERSION)
  writer.uint32(tag(2, 2)).string('lorikeet')
  message(writer, 7, () => writeGraph(writer, graph))
  message(writer, 8, () => writer.uint32(tag(1, 2)).string('').uint32(tag(2, 0)).int64(ONNX_OPSET))
  message(writer, 8, () => writer.uint32(tag(1, 2)).string('com.microsoft').uint32(tag(2, 0)).int64(CONTRIB_OPSET))
  return writer.finish()
}

function writeGraph(writer: Writer, graph: GraphProto): void {
  for (const node of graph.nodes) message(writer, 1, () => writeNode(writer, node))
  writer.uint32(tag(2, 2)).string(graph.name)
  for (const initializer of graph.initializers) message(writer, 5, () => writeInitializer(writer, initializer))
  for (const input of graph.inputs) message(writer, 11, () => writeValue(writer, input))
  for (const output of graph.outputs) message(writer, 12, () => writeValue(writer, output))
}

function writeNode(writer: Writer, node: NodeProto): void {
  for (const input of node.inputs) writer.uint32(tag(1, 2)).string(input)
  for (const output of node.outputs) writer.uint32(tag(2, 2)).string(output)
  // The first output names the node in profiles and error texts.
  writer.uint32(tag(3, 2)).string(node.outputs[0] ?? '')
  writer.uint32(tag(4, 2)).string(node.opType)
  for (const [name, value] of Object.entries(node.attributes)) message(writer, 5, () => writeAttribute(writer, name, value))
  writer.uint32(tag(7, 2)).string(node.domain)
}

function writeAttribute(writer: Writer, name: string, value: AttributeValue): void {
  writer.uint32(tag(1, 2)).string(name)
  let type: number
  if (typeof value === 'string') {
    writer.uint32(tag(4, 2)).string(value)
    type = ATTRIBUTE_STRING
  } else if (typeof value === 'number') {
    writer.uint32(tag(3, 0)).int64(value)
    type = ATTRIBUTE_INT
  } else if ('float' in value) {
    writer.uint32(tag(2, 5)).float(value.float)
    type = ATTRIBUTE_FLOAT
  } else {
    for (const item of value) writer.uint32(tag(8, 0)).int64(item)
    type = ATTRIBUTE_INTS
  }
  writer.uint32(tag(20, 0)).int32(type)
}

function writeInitializer(writer: Writer, initializer: InitializerProto): void {
  for (const dim of initializer.dims) writer.uint32(tag(1, 0)).int64(dim)
  writer.uint32(tag(2, 0)).int32(DATA_TYPES[initializer.dataType])
  writer.uint32(tag(8, 2)).string(initializer.name)
  const { data } = initializer
  if (data instanceof Uint8Array) {
    writer.uint32(tag(9, 2)).bytes(data)
    return
  }
  for (const [key, value] of data) {
    message(writer, 13, () => writer.uint32(tag(1, 2)).string(key).uint32(tag(2, 2)).string(value))
  }
  writer.uint32(tag(14, 0)).int32(LOCATION_EXTERNAL)
}

function writeValue(writer: Writer, value: ValueProto): void {
  writer.uint32(tag(1, 2)).string(value.name)
  message(writer, 2, () =>
    message(writer, 1, () => {
      writer.uint32(tag(1, 0)).int32(DATA_TYPES[value.dataType])
      message(writer, 2, () => {
        for (const dim of value.dims) {
          message(writer, 1, () =>
            typeof dim === 'number' ? writer.uint32(tag(1, 0)).int64(dim) : writer.uint32(tag(2, 2)).string(dim),
          )
        }
      })
    }),
  )
}

function message(writer: Writer, field: number, write: () => unknown): void {
  writer.uint32(tag(field, 2)).fork()
  write()
  writer.ldelim()
}

function tag(field: number, wireType: 0 | 2 | 5): number {
  return (field << 3) | wireType
}
