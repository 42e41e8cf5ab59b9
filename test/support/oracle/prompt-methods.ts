// Soft prompts and prefixes as methods without a library keep them.

import { SHAPE } from './decoder.ts'
import { add, type Matrix, matVec } from './linear-algebra.ts'
import { Draw, type OracleMethod, Program } from './method.ts'

const { hidden, layers, kvHeads, headDim } = SHAPE
const LAYERS = Array.from({ length: layers }, (_, layer) => layer)

/** Rows of its own added to the prompt's rows as they enter each layer (arXiv:2305.12086). */
function prefixPropagation(): OracleMethod {
  const draw = new Draw(41)
  const numTokens = 5
  const rows = draw.matrix(numTokens, hidden, 0.8)
  const layerRows = LAYERS.map(() => draw.matrix(numTokens, hidden, 0.8))
  return {
    name: 'Prefix-Propagation',
    adapter: {
      softPrompt: rows,
      blockInput: (layer, row, index) => (index < numTokens ? add(row, layerRows[layer]![index]!) : row),
    },
    write: () => {
      const program = new Program()
      program.softPrompt(rows, layerRows)
      return program.write('prefix-propagation')
    },
  }
}

export function drawPrefix(draw: Draw, numTokens: number): readonly { readonly keys: Matrix; readonly values: Matrix }[] {
  const rows = () => draw.matrix(numTokens, kvHeads * headDim, 1)
  return LAYERS.map(() => ({ keys: rows(), values: rows() }))
}

/** A table [T, 2 · layers · width], keys then values of each layer in turn (arXiv:2110.07602). */
function pTuningV2(): OracleMethod {
  const draw = new Draw(42)
  const width = kvHeads * headDim
  const table = draw.matrix(6, 2 * layers * width, 1)
  const slice = (index: number) => table.map((row) => row.slice(index * width, (index + 1) * width))
  const prefix = LAYERS.map((layer) => ({ keys: slice(2 * layer), values: slice(2 * layer + 1) }))
  return {
    name: 'p-tuning v2',
    adapter: { prefix },
    write: () => {
      const program = new Program()
      program.prefix(prefix)
      return program.write('p-tuning-v2')
    },
  }
}

/** A few numbers decoded by Linear, tanh, Linear to all rows of a prompt (arXiv:2110.07867). */
function ipt(): OracleMethod {
  const draw = new Draw(43)
  const [numTokens, size] = [4, 5]
  const inner = matVec(draw.matrix(12, size, 1), draw.row(size, 1)).map(Math.tanh)
  const flat = matVec(draw.matrix(numTokens * hidden, 12, 0.5), inner)
  const rows = Array.from({ length: numTokens }, (_, i) => flat.slice(i * hidden, (i + 1) * hidden))
  return soft('IPT', rows)
}

/** Tokens and pieces of tokens masked out; what is left is kept in place as zeros (our reading of arXiv:2210.04457). */
function xprompt(): OracleMethod {
  const draw = new Draw(44)
  const [numTokens, pieces] = [6, 4]
  const keptTokens = [1, 0, 1, 1, 1, 0]
  const keptPieces = draw.matrix(numTokens, pieces, 1)
  const rows = draw
    .matrix(numTokens, hidden, 1)
    .map((row, i) => row.map((v, j) => keptTokens[i]! * (keptPieces[i]![Math.floor((j * pieces) / hidden)]! > 0 ? 1 : 0) * v))
  return soft('Xprompt', rows)
}

function soft(name: string, rows: Matrix): OracleMethod {
  return {
    name,
    adapter: { softPrompt: rows },
    write: () => {
      const program = new Program()
      program.softPrompt(rows)
      return program.write(name.toLowerCase())
    },
  }
}

export const PROMPT_METHODS: readonly OracleMethod[] = [prefixPropagation(), pTuningV2(), ipt(), xprompt()]
