// Everything about a model directory that concerns text: tokenizer, chat template, end-of-sequence ids, sampling defaults.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isJsonObject } from '../core/json.ts'
import { LorikeetError } from '../errors.ts'
import { ChatTemplate, type SpecialTokenTexts } from './chat-template.ts'
import {
  type GenerationDefaults,
  NO_GENERATION_DEFAULTS,
  readEosTokenIds,
  readGenerationDefaults,
} from './generation-defaults.ts'
import { Tokenizer } from './tokenizer.ts'

export interface TextModel {
  /** Null for a model directory without tokenizer.json: prompts are token ids and text is empty. */
  readonly tokenizer: Tokenizer | null
  readonly chatTemplate: ChatTemplate | null
  /** Any of these ends a sequence, unless the request says ignore_eos. */
  readonly eosTokenIds: readonly number[]
  readonly generationDefaults: GenerationDefaults
}

export interface TextModelOptions {
  /** File with a Jinja template; null = the model's own. */
  readonly chatTemplate: string | null
  readonly useGenerationConfig: boolean
}

/** Reads a model directory. Throws MODEL_INVALID, MODEL_UNSUPPORTED, or CONFIG_INVALID for the template file. */
export async function loadTextModel(modelPath: string, options: TextModelOptions): Promise<TextModel> {
  const [tokenizerJson, tokenizerConfig, generationConfig, modelConfig] = await Promise.all(
    ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'config.json'].map((file) =>
      readJson(modelPath, file),
    ),
  )
  const tokenizer = tokenizerJson === null ? null : new Tokenizer(tokenizerJson, tokenizerConfig)
  return {
    tokenizer,
    chatTemplate: await loadChatTemplate(modelPath, tokenizerConfig, options.chatTemplate, {
      bosToken: tokenizer?.bosToken ?? null,
      eosToken: tokenizer?.eosToken ?? null,
    }),
    eosTokenIds: collectEosTokenIds(tokenizer, generationConfig, modelConfig),
    generationDefaults: options.useGenerationConfig ? readGenerationDefaults(generationConfig) : NO_GENERATION_DEFAULTS,
  }
}

/** The tokenizer's own and generation_config's extra ids; config.json speaks only when neither does. */
function collectEosTokenIds(tokenizer: Tokenizer | null, generationConfig: unknown, modelConfig: unknown): number[] {
  const ids = new Set(readEosTokenIds(generationConfig))
  if (tokenizer?.eosToken) {
    const id = tokenizer.tokenId(tokenizer.eosToken)
    if (id !== null) ids.add(id)
  }
  return ids.size > 0 ? [...ids] : readEosTokenIds(modelConfig)
}

async function loadChatTemplate(
  modelPath: string,
  tokenizerConfig: unknown,
  file: string | null,
  specials: SpecialTokenTexts,
): Promise<ChatTemplate | null> {
  if (file !== null) {
    const source = await readText(file)
    if (source === null) throw new LorikeetError('CONFIG_INVALID', { option: '--chat-template', reason: `no file ${file}` })
    return parseTemplate(
      source,
      specials,
      (reason) => new LorikeetError('CONFIG_INVALID', { option: '--chat-template', reason }),
    )
  }
  const source = (await readText(join(modelPath, 'chat_template.jinja'))) ?? configuredTemplate(tokenizerConfig)
  if (source === null) return null
  const hint = 'give a template that parses with --chat-template FILE'
  return parseTemplate(
    source,
    specials,
    (reason) => new LorikeetError('MODEL_INVALID', { reason: `its chat template does not parse (${reason}): ${hint}` }),
  )
}

function parseTemplate(source: string, specials: SpecialTokenTexts, fault: (reason: string) => LorikeetError): ChatTemplate {
  try {
    return new ChatTemplate(source, specials)
  } catch (error) {
    throw fault(error instanceof Error ? error.message : String(error))
  }
}

/** `chat_template` of tokenizer_config.json: a string, or a list of named ones of which `default` is meant. */
function configuredTemplate(tokenizerConfig: unknown): string | null {
  const value = isJsonObject(tokenizerConfig) ? tokenizerConfig['chat_template'] : undefined
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) return null
  const named = value.filter(isJsonObject).find((entry) => entry['name'] === 'default')
  return typeof named?.['template'] === 'string' ? named['template'] : null
}

async function readJson(modelPath: string, file: string): Promise<unknown> {
  const text = await readText(join(modelPath, file))
  if (text === null) return null
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new LorikeetError('MODEL_INVALID', { reason: `${file} is not JSON` }, { cause: error })
  }
}

/** Null when there is no such file. */
async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return null
    const detail = error instanceof Error ? error.message : String(error)
    throw new LorikeetError('MODEL_INVALID', { reason: detail }, { cause: error })
  }
}
