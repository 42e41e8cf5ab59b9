// What each token id contributes to text, read once from tokenizer.json, so that decoding is a table look-up.
//
// The decoders of decoder-only models reduce to: per token a byte string, bytes joined and read as UTF-8, and at most one
// leading blank of the whole removed. Decoders that do not (WordPiece, CTC) are refused: nothing this server runs uses them.

import { isJsonObject, type JsonObject } from '../core/json.ts'
import { LorikeetError } from '../errors.ts'

export interface TokenTable {
  /** Highest id + 1. */
  readonly size: number
  /** UTF-8 bytes by id; undefined for an id without a token. */
  readonly bytes: readonly (Uint8Array | undefined)[]
  /** The same as text where the bytes are whole characters; null where a neighbour must complete them. */
  readonly texts: readonly (string | null | undefined)[]
  /** Token strings as they stand in the vocabulary. */
  readonly tokens: readonly (string | undefined)[]
  readonly specialIds: ReadonlySet<number>
  /** Leading blanks removed from a decoded text, at most. */
  readonly numStrippedBlanks: number
  /** Put between tokens: '' unless the tokenizer has no decoder at all. */
  readonly separator: string
  /** Longest token in UTF-16 units: bounds the text that can fit a context. */
  readonly maxTokenChars: number
}

interface DecodeRules {
  replacements: { from: string; to: string }[]
  byteLevel: boolean
  byteFallback: boolean
  numStrippedBlanks: number
  separator: string
}

/** Builds the table from a parsed tokenizer.json. Throws MODEL_INVALID or MODEL_UNSUPPORTED. */
export function buildTokenTable(tokenizerJson: unknown): TokenTable {
  if (!isJsonObject(tokenizerJson)) throw invalid('tokenizer.json is not an object')
  const tokens = readVocabulary(tokenizerJson['model'])
  const added = readAddedTokens(tokenizerJson['added_tokens'])
  for (const { id, content } of added) tokens[id] = content
  const rules = readRules(tokenizerJson['decoder'])
  const addedIds = new Set(added.map((token) => token.id))
  const bytes = tokens.map((token, id) => (token === undefined ? undefined : tokenBytes(token, addedIds.has(id), rules)))
  return {
    size: tokens.length,
    bytes,
    texts: bytes.map((value) => (value === undefined ? undefined : wholeText(value))),
    tokens,
    specialIds: new Set(added.filter((token) => token.special).map((token) => token.id)),
    numStrippedBlanks: rules.numStrippedBlanks,
    separator: rules.separator,
    maxTokenChars: tokens.reduce((longest, token) => Math.max(longest, token?.length ?? 0), 1),
  }
}

/** A list without holes: absent ids are undefined. */
function readVocabulary(model: unknown): (string | undefined)[] {
  const vocab = isJsonObject(model) ? model['vocab'] : undefined
  if (Array.isArray(vocab)) return vocab.map((entry: unknown) => (Array.isArray(entry) ? String(entry[0]) : undefined))
  if (!isJsonObject(vocab)) throw invalid('tokenizer.json has no model.vocab')
  const tokens: (string | undefined)[] = []
  for (const [token, id] of Object.entries(vocab)) setToken(tokens, id, token)
  return tokens
}

function readAddedTokens(value: unknown): { id: number; content: string; special: boolean }[] {
  if (!Array.isArray(value)) return []
  return value.map((entry: unknown) => {
    if (!isJsonObject(entry) || !isTokenId(entry['id']) || typeof entry['content'] !== 'string') {
      throw invalid('tokenizer.json: an entry of added_tokens lacks id or content')
    }
    return { id: entry['id'], content: entry['content'], special: entry['special'] === true }
  })
}

// Largest vocabularies today are near 262,144; a larger id is a corrupt file, and would make the table huge.
const MAX_TOKEN_ID = 4_194_304

function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKEN_ID
}

function setToken(tokens: (string | undefined)[], id: unknown, token: string): void {
  if (!isTokenId(id)) throw invalid(`tokenizer.json: token ${JSON.stringify(token)} has id ${String(id)}`)
  while (tokens.length <= id) tokens.push(undefined)
  tokens[id] = token
}

function readRules(decoder: unknown): DecodeRules {
  const rules: DecodeRules = { replacements: [], byteLevel: false, byteFallback: false, numStrippedBlanks: 0, separator: '' }
  if (decoder === null || decoder === undefined) rules.separator = ' '
  else for (const step of flatten(decoder)) applyStep(rules, step)
  return rules
}

function flatten(decoder: unknown): JsonObject[] {
  if (!isJsonObject(decoder)) throw invalid('tokenizer.json: decoder is not an object')
  if (decoder['type'] !== 'Sequence') return [decoder]
  const steps = decoder['decoders']
  if (!Array.isArray(steps)) throw invalid('tokenizer.json: decoder.decoders is not a list')
  return steps.flatMap(flatten)
}

function applyStep(rules: DecodeRules, step: JsonObject): void {
  switch (step['type']) {
    case 'ByteLevel':
      rules.byteLevel = true
      return
    case 'ByteFallback':
      rules.byteFallback = true
      return
    case 'Fuse':
      return
    case 'Replace': {
      const pattern = isJsonObject(step['pattern']) ? step['pattern']['String'] : undefined
      if (typeof pattern !== 'string') throw unsupported('Replace with a regular expression')
      rules.replacements.push({ from: pattern, to: String(step['content'] ?? '') })
      return
    }
    case 'Metaspace':
      rules.replacements.push({ from: String(step['replacement'] ?? '▁'), to: ' ' })
      if (step['prepend_scheme'] !== 'never' && step['add_prefix_space'] !== false) rules.numStrippedBlanks = 1
      return
    case 'Strip':
      if (step['content'] !== ' ' || Number(step['stop'] ?? 0) !== 0) throw unsupported('Strip other than leading blanks')
      rules.numStrippedBlanks = Number(step['start'] ?? 0)
      return
    default:
      throw unsupported(String(step['type']))
  }
}

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/

function tokenBytes(token: string, isAdded: boolean, rules: DecodeRules): Uint8Array {
  const byte = rules.byteFallback ? BYTE_TOKEN.exec(token)?.[1] : undefined
  if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16))
  if (rules.byteLevel && !isAdded) return byteLevelBytes(token)
  let text = token
  for (const { from, to } of rules.replacements) text = text.replaceAll(from, to)
  return encoder.encode(text)
}

/** GPT-2 writes each byte as a printable character: printable ones as themselves, the others from U+0100 up. */
const byteOfCharacter: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>()
  let numShifted = 0
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    map.set(String.fromCodePoint(isPrintable ? byte : 256 + numShifted++), byte)
  }
  return map
})()

function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = []
  for (const character of token) {
    const byte = byteOfCharacter.get(character)
    // A vocabulary entry that is not written in the byte alphabet stands for itself, as in Rust tokenizers.
    if (byte === undefined) return encoder.encode(token)
    bytes.push(byte)
  }
  return Uint8Array.from(bytes)
}

function wholeText(bytes: Uint8Array): string | null {
  try {
    return strictDecoder.decode(bytes)
  } catch {
    return null
  }
}

function invalid(reason: string): LorikeetError {
  return new LorikeetError('MODEL_INVALID', { reason })
}

function unsupported(value: string): LorikeetError {
  const hint = 'serve it without tokenizer files, with token-id prompts'
  return new LorikeetError('MODEL_UNSUPPORTED', { field: 'tokenizer.json decoder', value, hint })
}
