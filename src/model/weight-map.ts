// Matches a checkpoint's tensors with what the architecture needs: nothing missing, nothing left over, every shape as described.

import type { ModelDescription } from './architectures/architecture.ts'
import { modelInvalid } from './checkpoint.ts'
import type { ParameterName, TensorDtype, TensorRef } from './decoder-spec.ts'
import type { ModuleInfo, ModulePart } from './module-map.ts'
import type { SafetensorsDtype, SafetensorsEntry } from './safetensors.ts'

export const BYTES_PER_ELEMENT: Readonly<Record<TensorDtype, number>> = { F32: 4, F16: 2, BF16: 2 }

/** Names an error message lists before it says "and N more". */
const MAX_LISTED_NAMES = 5

type Checkpoint = ReadonlyMap<string, SafetensorsEntry>

type Suffix = '' | '.bias'

/** A module's tensor: rows of it count from `rowStart` of `entry`, leading dimensions flattened. */
interface Located {
  readonly entry: SafetensorsEntry
  readonly rowStart: number
}

/** Canonical name -> bytes. Throws MODEL_INVALID naming the tensors at fault. */
export function mapWeights(description: ModelDescription, checkpoint: Checkpoint): ReadonlyMap<ParameterName, TensorRef> {
  const parameters = new Map<ParameterName, TensorRef>()
  const used = new Set<string>()
  const missing: string[] = []
  for (const module of description.modules) {
    if (module.kind === 'head' && description.spec.tiedHead) continue
    const suffixes: readonly Suffix[] = module.hasBias ? ['', '.bias'] : ['']
    for (const suffix of suffixes) {
      const located = locate(description, checkpoint, module, suffix)
      if (located === null) {
        missing.push(tensorName(module, suffix))
        continue
      }
      used.add(located.entry.name)
      for (const part of module.parts) parameters.set(part.site + suffix, partRef(located, module, part, suffix))
    }
  }
  if (missing.length > 0) throw modelInvalid(`the checkpoint lacks ${listNames(missing)}`)
  const extra = [...checkpoint.keys()].filter((name) => !used.has(name) && !isIgnored(description, name))
  if (extra.length > 0) throw modelInvalid(`the checkpoint has tensors this architecture does not use: ${listNames(extra)}`)
  return parameters
}

function locate(description: ModelDescription, checkpoint: Checkpoint, module: ModuleInfo, suffix: Suffix): Located | null {
  const own = findTensor(description, checkpoint, tensorName(module, suffix))
  if (own !== null) {
    checkShape(own, expectedShape(module, suffix))
    return { entry: own, rowStart: 0 }
  }
  const home = suffix === '' ? description.otherHomes.get(module.path) : undefined
  const entry = home === undefined ? null : findTensor(description, checkpoint, home.tensor)
  if (home === undefined || entry === null) return null
  checkShape(entry, home.shape)
  return { entry, rowStart: home.rowStart }
}

function tensorName(module: ModuleInfo, suffix: Suffix): string {
  return module.path + (suffix === '' ? '.weight' : '.bias')
}

function findTensor(description: ModelDescription, checkpoint: Checkpoint, name: string): SafetensorsEntry | null {
  const { basePrefix } = description
  const bare = name.startsWith(basePrefix) ? name.slice(basePrefix.length) : name
  return checkpoint.get(name) ?? checkpoint.get(bare) ?? null
}

function expectedShape(module: ModuleInfo, suffix: Suffix): readonly number[] {
  const { outFeatures, inFeatures } = module
  if (suffix === '.bias' || module.kind === 'norm') return [outFeatures]
  return module.isConv1d ? [inFeatures, outFeatures] : [outFeatures, inFeatures]
}

function checkShape(entry: SafetensorsEntry, expected: readonly number[]): void {
  const { name, shape } = entry
  if (shape.length === expected.length && shape.every((size, i) => size === expected[i])) return
  throw modelInvalid(`tensor ${name} has shape [${shape.join(', ')}], config.json makes it [${expected.join(', ')}]`)
}

function partRef({ entry, rowStart }: Located, module: ModuleInfo, part: ModulePart, suffix: Suffix): TensorRef {
  const { name, file, byteOffset, dtype, shape } = entry
  if (!isTensorDtype(dtype)) throw modelInvalid(`tensor ${name} has dtype ${dtype}; F32, F16 and BF16 are served`)
  const numRows = part.rowEnd - part.rowStart
  if (module.isConv1d && suffix === '') {
    const isWhole = numRows === module.outFeatures
    const transposedRows = isWhole ? null : ([part.rowStart, part.rowEnd] as const)
    return { file, byteOffset, dtype, shape, isTransposed: true, transposedRows }
  }
  const isVector = suffix === '.bias' || module.kind === 'norm'
  const rowBytes = (isVector ? 1 : module.inFeatures) * BYTES_PER_ELEMENT[dtype]
  return {
    file,
    byteOffset: byteOffset + (rowStart + part.rowStart) * rowBytes,
    dtype,
    shape: isVector ? [numRows] : [numRows, module.inFeatures],
    isTransposed: false,
    transposedRows: null,
  }
}

function isTensorDtype(dtype: SafetensorsDtype): dtype is TensorDtype {
  return Object.hasOwn(BYTES_PER_ELEMENT, dtype)
}

/** A tied checkpoint may hold its head twice; HF drops the second, and so do we. */
function isIgnored(description: ModelDescription, name: string): boolean {
  if (description.spec.tiedHead && name === 'lm_head.weight') return true
  return description.ignoredTensors.some((pattern) => pattern.test(name))
}

function listNames(names: readonly string[]): string {
  const listed = names.slice(0, MAX_LISTED_NAMES).join(', ')
  return names.length > MAX_LISTED_NAMES ? `${listed} and ${names.length - MAX_LISTED_NAMES} more` : listed
}
