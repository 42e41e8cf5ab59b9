// Matrices in the form onnxruntime multiplies with, in one file that every graph maps.
//
// Measured (onnxruntime 1.30, 135M parameters, float32, two threads): 16 rows through unpacked weights take 2.1x the time of
// packed ones, and each session that packs for itself holds another copy of the model. onnxruntime can write what it packed
// beside the weights (`session.save_external_prepacked_constant_initializers`); a graph that names the same bytes maps them,
// opens without packing and shares the pages with all other graphs. So: pack once, then write graphs that point into the file.

import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { env, InferenceSession } from 'onnxruntime-node'
import { LorikeetError } from '../../errors.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { allGroups, type DecoderLayout, type LinearGroup, matricesOf, parameterOf } from './decoder-layout.ts'
import { GraphBuilder } from './graph-builder.ts'
import { readExternalData } from './proto-reader.ts'
import type { ExternalData } from './proto-writer.ts'

/** Raises with every change of what the file holds. */
const STORE_VERSION = 2
const RAW_FILE = 'raw.bin'
const PACKED_FILE = 'packed.bin'
const PACKED_MODEL = 'packed.onnx'
/** Packing takes a second for about this many bytes; a smaller model is packed at each start and leaves no file behind. */
const MIN_CACHED_BYTES = 128 << 20

/** onnxruntime's severity 3; its warnings are about choices made here on purpose. */
export const LOG_ERRORS = 3

export interface WeightStore {
  /** Folder of the packed file; a graph that uses the weights must be written here. */
  readonly dir: string
  /** Packed matrices by name. */
  readonly weights: ReadonlyMap<string, ExternalData>
  /** Removes a folder that is not kept. */
  release(): void
}

export interface WeightStoreOptions {
  readonly model: ModelSource
  readonly layout: DecoderLayout
  /** Where large models are kept packed; null = $XDG_CACHE_HOME/lorikeet or ~/.cache/lorikeet. */
  readonly cacheDir: string | null
  readonly onProgress: (loadedBytes: number) => void
}

/** Finds the packed weights, or packs them. Throws MODEL_INVALID, SAFETENSORS_INVALID, BACKEND_FAILED. */
export async function openWeightStore(options: WeightStoreOptions): Promise<WeightStore> {
  const { model, layout, cacheDir, onProgress } = options
  const groups = allGroups(layout).flatMap(matricesOf)
  const numBytes = groups.reduce((sum, { numIn, numOut }) => sum + numIn * numOut * Float32Array.BYTES_PER_ELEMENT, 0)
  const read = (group: LinearGroup) => group.parts.map((part) => model.read(parameterOf(model.spec, part)))
  const home = numBytes < MIN_CACHED_BYTES ? null : writableDir(cacheDir ?? defaultCacheDir())
  if (home === null) {
    const { dir, release } = createTemporaryDir()
    try {
      return { dir, weights: await pack(dir, groups, read, onProgress), release }
    } catch (error) {
      release()
      throw error
    }
  }
  const dir = join(home, await storeKey(model))
  if (!existsSync(join(dir, PACKED_MODEL))) {
    const building = mkdtempSync(join(home, 'building-'))
    try {
      await pack(building, groups, read, onProgress)
      if (!existsSync(dir)) renameSync(building, dir)
    } finally {
      rmSync(building, { recursive: true, force: true })
    }
  }
  onProgress(numBytes)
  return { dir, weights: readExternalData(readFileSync(join(dir, PACKED_MODEL))), release: () => {} }
}

/** Writes packed.bin and packed.onnx. `read` gives the rows of each part of a group. */
async function pack(
  dir: string,
  groups: readonly LinearGroup[],
  read: (group: LinearGroup) => readonly Float32Array[],
  onProgress: (packedBytes: number) => void,
): Promise<ReadonlyMap<string, ExternalData>> {
  const graph = new GraphBuilder()
  const file = openSync(join(dir, RAW_FILE), 'w')
  let byteOffset = 0
  try {
    for (const group of groups) {
      const numBytes = writeRows(file, read(group))
      const external = new Map(Object.entries({ location: RAW_FILE, offset: String(byteOffset), length: String(numBytes) }))
      const weight = graph.weight(group.name, 'float32', [group.numOut, group.numIn], external)
      const x = graph.input(`${group.name}.x`, 'float32', ['numRows', group.numIn])
      graph.output(graph.node('Gemm', [x, weight], { transB: 1 }), `${group.name}.y`, 'float32', ['numRows', group.numOut])
      byteOffset += numBytes
      onProgress(byteOffset)
    }
  } finally {
    closeSync(file)
  }
  const source = join(dir, 'pack.onnx')
  writeFileSync(source, graph.encode('pack'))
  try {
    const session = await InferenceSession.create(source, {
      // Any optimisation would rename or fuse what the graphs look up by name.
      graphOptimizationLevel: 'disabled',
      logSeverityLevel: LOG_ERRORS,
      intraOpNumThreads: 1,
      optimizedModelFilePath: join(dir, PACKED_MODEL),
      extra: {
        session: {
          save_external_prepacked_constant_initializers: '1',
          optimized_model_external_initializers_file_name: PACKED_FILE,
          optimized_model_external_initializers_min_size_in_bytes: '1',
        },
      },
    })
    await session.release()
  } catch (error) {
    const detail = `cannot pack the weights into ${dir}: ${error}`
    throw new LorikeetError('BACKEND_FAILED', { backend: 'onnx', detail }, { cause: error })
  }
  rmSync(join(dir, RAW_FILE))
  rmSync(source)
  return readExternalData(readFileSync(join(dir, PACKED_MODEL)))
}

/** Rows of all parts one after another. Returns the bytes written. */
function writeRows(file: number, parts: readonly Float32Array[]): number {
  let numBytes = 0
  for (const part of parts) {
    const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength)
    // A write may be cut short, and is at 2 GiB.
    for (let written = 0; written < bytes.length; ) written += writeSync(file, bytes, written)
    numBytes += bytes.length
  }
  return numBytes
}

/** Everything that decides the packed bytes: the files, what is packed of them, and how this processor packs. */
async function storeKey(model: ModelSource): Promise<string> {
  const hash = createHash('sha256')
  const files = new Set([...model.parameters.values()].map(({ file }) => file))
  hash.update(JSON.stringify([STORE_VERSION, env.versions.common, await packingProbe()]))
  for (const file of [...files].sort()) {
    const { size, mtimeMs, ino } = statSync(file)
    hash.update(JSON.stringify([file, size, mtimeMs, ino]))
  }
  return hash.digest('hex').slice(0, 32)
}

/**
 * How onnxruntime packs a small matrix here, as the hash that it writes beside packed bytes: a cache folder may be shared by
 * machines with other instruction sets, whose packed weights would be read as nonsense.
 */
async function packingProbe(): Promise<string> {
  const { dir, release } = createTemporaryDir()
  try {
    const group = { name: 'probe', numIn: 80, numOut: 112, parts: [], isApart: false }
    const values = Float32Array.from({ length: group.numIn * group.numOut }, (_, i) => i)
    const packed = await pack(
      dir,
      [group],
      () => [values],
      () => {},
    )
    return JSON.stringify([...(packed.get('probe') ?? [])])
  } finally {
    release()
  }
}

function createTemporaryDir(): { dir: string; release: () => void } {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-onnx-'))
  const remove = () => rmSync(dir, { recursive: true, force: true })
  process.once('exit', remove)
  const release = () => {
    process.removeListener('exit', remove)
    remove()
  }
  return { dir, release }
}

function defaultCacheDir(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'lorikeet', 'onnx')
}

/** Null where nothing can be written: the weights are then packed at each start. */
function writableDir(dir: string): string | null {
  try {
    mkdirSync(dir, { recursive: true })
    rmSync(mkdtempSync(join(dir, 'probe-')), { recursive: true })
    return dir
  } catch {
    return null
  }
}
