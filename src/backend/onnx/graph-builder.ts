// Collects nodes, initializers, inputs and outputs of one ONNX graph and names every value once.

import { invariant } from '../../core/invariant.ts'
import {
  type AttributeValue,
  type DataType,
  type ExternalData,
  encodeModel,
  type InitializerProto,
  type NodeProto,
  type ValueProto,
} from './proto-writer.ts'

/** Name of a value inside the graph. '' stands for an omitted optional input. */
export type Value = string

export const OMITTED: Value = ''

/** onnxruntime's own operators. */
const CONTRIB_OPS: ReadonlySet<string> = new Set([
  'FusedMatMul',
  'QuickGelu',
  'RotaryEmbedding',
  'SkipSimplifiedLayerNormalization',
])

export class GraphBuilder {
  readonly #nodes: NodeProto[] = []
  readonly #initializers = new Map<string, InitializerProto>()
  readonly #inputs = new Map<string, ValueProto>()
  readonly #outputs: ValueProto[] = []
  readonly #renamed = new Map<Value, string>()
  #nextId = 0

  /** Declares a graph input once; later calls with the same name answer the same value. */
  input(name: string, dataType: DataType, dims: readonly (number | string)[]): Value {
    if (!this.#inputs.has(name)) this.#inputs.set(name, { name, dataType, dims })
    return name
  }

  get inputNames(): string[] {
    return [...this.#inputs.keys()]
  }

  /** Makes `value` an output under `name`. Renaming it costs nothing; an Identity node would copy it. */
  output(value: Value, name: string, dataType: DataType, dims: readonly (number | string)[]): void {
    this.#renamed.set(value, name)
    this.#outputs.push({ name, dataType, dims })
  }

  /** One node with one output. */
  node(opType: string, inputs: readonly Value[], attributes: Readonly<Record<string, AttributeValue>> = {}): Value {
    return this.nodes(opType, inputs, 1, attributes)[0] as Value
  }

  /** One node with several outputs; a null name in `keep` leaves that output out. */
  nodes(
    opType: string,
    inputs: readonly Value[],
    numOutputs: number,
    attributes: Readonly<Record<string, AttributeValue>> = {},
    keep: (index: number) => boolean = () => true,
  ): Value[] {
    const outputs = Array.from({ length: numOutputs }, (_, index) => (keep(index) ? `${opType}.${this.#nextId++}` : OMITTED))
    const domain = CONTRIB_OPS.has(opType) ? 'com.microsoft' : ''
    this.#nodes.push({ opType, domain, inputs, outputs, attributes })
    return outputs
  }

  /** A weight in the external-data file. */
  weight(name: string, dataType: DataType, dims: readonly number[], data: ExternalData): Value {
    if (!this.#initializers.has(name)) this.#initializers.set(name, { name, dataType, dims, data })
    return name
  }

  /** A small float constant inside the model file. */
  floats(name: string, dims: readonly number[], values: Float32Array | readonly number[]): Value {
    const data = values instanceof Float32Array ? values : Float32Array.from(values)
    invariant(data.length === dims.reduce((product, dim) => product * dim, 1), `shape of ${name}`)
    return this.#constant(name, 'float32', dims, new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  }

  scalar(value: number): Value {
    return this.floats(`scalar.${value}`, [], [value])
  }

  /** A shape, axes or index constant. */
  ints(values: readonly number[]): Value {
    const data = BigInt64Array.from(values, BigInt)
    return this.#constant(`ints.${values.join('.')}`, 'int64', [values.length], new Uint8Array(data.buffer))
  }

  encode(name: string): Uint8Array {
    const rename = (value: Value) => this.#renamed.get(value) ?? value
    return encodeModel({
      name,
      nodes: this.#nodes.map((node) => ({ ...node, inputs: node.inputs.map(rename), outputs: node.outputs.map(rename) })),
      initializers: [...this.#initializers.values()],
      inputs: [...this.#inputs.values()],
      outputs: this.#outputs,
    })
  }

  #constant(name: string, dataType: DataType, dims: readonly number[], data: Uint8Array): Value {
    if (!this.#initializers.has(name)) this.#initializers.set(name, { name, dataType, dims, data })
    return name
  }
}
