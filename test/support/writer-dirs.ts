// Directories as other writers leave them, for the golden Llama, and the numbers in them.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRandom, randomArray } from './random-adapter.ts'
import { tempDir } from './safetensors-file.ts'
import { NumpyInt, type TorchDict, TorchSize, type TorchTensor, tensor, writeTorchFile } from './torch-file.ts'

/** Sizes of test/fixtures/models/llama. */
export const SHAPE = { layers: 2, hidden: 64, ff: 128, kv: 32 } as const

export const WIDTHS: Readonly<Record<string, readonly [numOut: number, numIn: number]>> = {
  'self_attn.q_proj': [SHAPE.hidden, SHAPE.hidden],
  'self_attn.k_proj': [SHAPE.kv, SHAPE.hidden],
  'self_attn.v_proj': [SHAPE.kv, SHAPE.hidden],
  'self_attn.o_proj': [SHAPE.hidden, SHAPE.hidden],
  'mlp.gate_proj': [SHAPE.ff, SHAPE.hidden],
  'mlp.up_proj': [SHAPE.ff, SHAPE.hidden],
  'mlp.down_proj': [SHAPE.hidden, SHAPE.ff],
}

export type Json = Readonly<Record<string, unknown>>

export interface WriterDir {
  readonly config: Json
  readonly tensors: Readonly<Record<string, TorchTensor>>
}

/** One random tensor a name and shape, the same in every run. */
export function drawTensors(shapes: Readonly<Record<string, readonly number[]>>, seed = 7): Record<string, TorchTensor> {
  const random = createRandom(seed)
  const draw = (shape: readonly number[]): TorchTensor => ({
    shape,
    values: [
      ...randomArray(
        random,
        shape.reduce((product, size) => product * size, 1),
        0.2,
      ),
    ],
  })
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, draw(shape)]))
}

/** `values` as the compiler keeps them. */
export function floats(tensors: WriterDir['tensors'], name: string): Float32Array {
  const found = tensors[name]
  if (found === undefined) throw new Error(`no tensor ${name}`)
  return Float32Array.from(found.values)
}

/** Files by name: JSON where it ends so, PyTorch otherwise. Returns the directory. */
export function writeFiles(files: Readonly<Record<string, Json | TorchDict>>): string {
  const dir = join(tempDir(), 'adapter')
  mkdirSync(dir)
  for (const [name, content] of Object.entries(files)) {
    if (name.endsWith('.json')) writeFileSync(join(dir, name), JSON.stringify(content))
    else writeTorchFile(join(dir, name), content as TorchDict)
  }
  return dir
}

export function writePeft({ config, tensors }: WriterDir): string {
  return writeFiles({ 'adapter_config.json': config, 'adapter_model.bin': tensors })
}

/** LLM-Adapters (its BottleneckConfig has these keys, whatever their values). */
export function llmAdapters(config: Json, names: readonly string[], size = 8): WriterDir {
  const isParallel = config['use_parallel_adapter'] === true
  const shapes: Record<string, readonly number[]> = {}
  for (let layer = 0; layer < SHAPE.layers; layer++) {
    for (const name of names) {
      const [numOut, numIn] = WIDTHS[name]!
      const isOutput = !isParallel && name.endsWith('down_proj')
      const path = `base_model.model.model.layers.${layer}.${name}`
      if (config['scaling'] === 'learned') shapes[`${path}.adapter_scaling`] = [1]
      shapes[`${path}.adapter_down.weight`] = [size, isOutput ? numOut : numIn]
      shapes[`${path}.adapter_up.weight`] = [isParallel || isOutput ? numOut : numIn, size]
    }
  }
  const fields = {
    adapter_dropout: 0.05,
    base_model_name_or_path: 'yahma/llama-7b-hf',
    bias: 'none',
    bottleneck_size: size,
    inference_mode: true,
    init_weights: 'mam_adapter',
    modules_to_save: null,
    non_linearity: 'tanh',
    peft_type: 'BOTTLENECK',
    scaling: 1,
    target_modules: names.map((name) => name.slice(name.indexOf('.') + 1)),
    task_type: 'CAUSAL_LM',
    use_adapterp: false,
    use_parallel_adapter: false,
  }
  return { config: { ...fields, ...config }, tensors: drawTensors(shapes) }
}

/** DePT's fork. */
export function dept(config: Json = {}): WriterDir {
  const shapes = {
    prompt_embeddings: [3, SHAPE.hidden],
    'prompt_encoder.lora_embedding_A': [16, 4],
    'prompt_encoder.lora_embedding_B': [4, SHAPE.hidden],
  }
  const fields = {
    base_model_name_or_path: 'llama',
    bias: 'none',
    hidden_size: 768,
    inference_mode: true,
    init_lora_weights: true,
    load_lora_embedding_B: true,
    load_lora_embeddings: true,
    lora_alpha: 8,
    max_length: 16,
    num_attention_heads: 4,
    num_layers: 2,
    num_transformer_submodules: 1,
    num_virtual_tokens: 3,
    peft_type: 'PROMPT_TUNING_LORA',
    prompt_tuning_init: 'TEXT',
    prompt_tuning_init_text: 'Classify this text:',
    r: 4,
    revision: null,
    save_lora_embeddings: true,
    task_type: 'CAUSAL_LM',
    token_dim: SHAPE.hidden,
    tokenizer_name_or_path: 'llama',
  }
  return { config: { ...fields, ...config }, tensors: drawTensors(shapes) }
}

/** Entries of one parameter as composable-sft encodes them: the first dimension runs fastest, positions as steps. */
export function sftDiff(shape: readonly number[], entries: readonly { at: readonly number[]; value: number }[]): TorchDict {
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((product, size) => product * size, 1))
  const flat = entries
    .map(({ at, value }) => ({ index: at.reduce((sum, position, axis) => sum + position * strides[axis]!, 0), value }))
    .sort((a, b) => a.index - b.index)
  const steps = flat.map(({ index }, i) => (i === 0 ? new NumpyInt(index) : index - flat[i - 1]!.index))
  const values = tensor(
    [flat.length],
    flat.map(({ value }) => value),
  )
  return { size: new TorchSize(shape), index_steps: steps, values }
}

export function writeSft(content: TorchDict): string {
  return writeFiles({ 'pytorch_diff.bin': content })
}

export interface ReftOptions {
  readonly type: string
  readonly layers: readonly number[]
  readonly config?: Json
  readonly component?: (layer: number) => string
  readonly fileName?: (name: string) => string
}

/** Shapes of what each class of pyreft saves, rank 4. */
const REFT_SHAPES: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>> = {
  Loreft: { weight: [4, SHAPE.hidden], bias: [4], rotate_layer: [SHAPE.hidden, 4] },
  Noreft: {
    embed_dim: [],
    interchange_dim: [],
    'proj_layer.weight': [4, SHAPE.hidden],
    'proj_layer.bias': [4],
    'learned_source.weight': [4, SHAPE.hidden],
    'learned_source.bias': [4],
  },
  Direft: {
    embed_dim: [],
    'rotate_layer.parametrizations.weight.original': [SHAPE.hidden, 4],
    'rotate_layer.parametrizations.weight.0.base': [SHAPE.hidden, SHAPE.hidden],
    'learned_source.weight': [4, SHAPE.hidden],
    'learned_source.bias': [4],
  },
  Consreft: { rotate_layer: [SHAPE.hidden, 4], learned_source: [4] },
}

/** Tensors of intervention `index` of a pyreft directory. */
export function reftTensors(type: string, index: number): Record<string, TorchTensor> {
  return drawTensors(REFT_SHAPES[type]!, 100 + index)
}

/** As pyvene saves it; `positions` is what the operator adds. */
export function writeReft({ type, layers, config = {}, component, fileName = (name) => name }: ReftOptions): string {
  const files: Record<string, Json | TorchDict> = {}
  const counts = new Map<number, number>()
  const representations = layers.map((layer, index) => {
    const path = component?.(layer) ?? 'block_output'
    const where = path.includes('.') ? `comp_${path.replaceAll('.', '_')}` : `layer_${layer}_comp_${path}`
    const count = counts.get(layer) ?? 0
    counts.set(layer, count + 1)
    files[fileName(`intkey_${where}_unit_pos_nunit_1#${count}.bin`)] = reftTensors(type, index)
    return [layer, path, 'pos', 1, 4, null, null, null, null, null, null, null, null, null]
  })
  files['config.json'] = {
    intervention_constant_sources: layers.map(() => true),
    intervention_dimensions: layers.map(() => null),
    intervention_types: layers.map(() => `<class 'pyreft.interventions.${type}Intervention'>`),
    mode: 'parallel',
    model_type: "<class 'transformers.models.llama.modeling_llama.LlamaForCausalLM'>",
    representations,
    sorted_keys: layers.map((layer) => `layer_${layer}_comp_block_output_unit_pos_nunit_1#0`),
    transformers_version: '4.40.1',
    ...config,
  }
  return writeFiles(files)
}

/** OpenDelta's files for one type; `shapes` are of tensors below `model.layers.N`, or of whole names. */
export function openDelta(type: string, config: Json, shapes: Readonly<Record<string, readonly number[]>>): WriterDir {
  const named: Record<string, readonly number[]> = {}
  for (const [name, shape] of Object.entries(shapes)) {
    const isOfLayer = /^(self_attn|mlp|input_layernorm)\b/.test(name)
    const layers = Array.from({ length: SHAPE.layers }, (_, layer) => layer)
    for (const path of isOfLayer ? layers.map((layer) => `model.layers.${layer}.${name}`) : [name]) named[path] = shape
  }
  const fields = {
    backbone_checkpoint_name: 'llama',
    backbone_class: 'LlamaForCausalLM',
    backbone_hash: 'da4a4b0c2f0b8a1e',
    common_structure: false,
    delta_type: type,
    opendelta_version: '0.3.2',
    transformers_version: '4.22.2',
    unfrozen_modules: ['deltas'],
  }
  return { config: { ...fields, ...config }, tensors: drawTensors(named) }
}

export function writeOpenDelta({ config, tensors }: WriterDir): string {
  return writeFiles({ 'config.json': config, 'pytorch_model.bin': tensors })
}

/** MoE-PEFT: `method` is the prefix of its keys; `routed` and `plain` name linears. */
export function moePeft(
  method: 'mola' | 'loramoe',
  config: Json,
  routed: readonly string[],
  plain: readonly string[] = [],
): WriterDir {
  const shapes: Record<string, readonly number[]> = {}
  const add = (path: string, [numOut, numIn]: readonly [number, number]) => {
    shapes[`${path}.lora_A.weight`] = [4, numIn]
    shapes[`${path}.lora_B.weight`] = [numOut, 4]
  }
  for (let layer = 0; layer < SHAPE.layers; layer++) {
    for (const name of [...routed, ...plain]) {
      const path = `${method}.layers.${layer}.${name}`
      if (plain.includes(name)) add(path, WIDTHS[name]!)
      else {
        shapes[`${path}.moe_gate.weight`] = [3, WIDTHS[name]![1]]
        for (let e = 0; e < 3; e++) add(`${path}.experts.${e}`, WIDTHS[name]!)
      }
    }
  }
  const fields = {
    base_model_name_or_path: 'llama',
    bias: 'none',
    lora_alpha: 8,
    lora_dropout: 0.05,
    num_experts: 3,
    peft_type: method.toUpperCase(),
    r: 4,
    routing_strategy: method,
    target_modules: [...routed, ...plain].map((name) => name.slice(name.indexOf('.') + 1)),
    task_type: 'CAUSAL_LM',
  }
  return { config: { ...fields, ...config }, tensors: drawTensors(shapes) }
}
