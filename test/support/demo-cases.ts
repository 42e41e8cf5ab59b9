// Prompts and greedy texts that come with the demo model and its adapters.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DEMO_ADAPTERS, DEMO_MODEL } from './server-process.ts'

export interface DemoCase {
  /** Null for the base model. */
  readonly adapter: string | null
  readonly prompt: string
  readonly promptIds: readonly number[]
  readonly tokenIds: readonly number[]
  readonly text: string
}

interface AdapterFile {
  readonly cases: readonly { prompt: string; prompt_ids: number[]; token_ids: number[]; text: string }[]
}

interface BaseFile {
  readonly prompt: string
  readonly prompt_ids: number[]
  /** Prompt included. */
  readonly greedy_200_ids: number[]
  /** Prompt included. */
  readonly text: string
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
}

export function adapterCases(adapter: string): DemoCase[] {
  const { cases } = readJson<AdapterFile>(join(DEMO_ADAPTERS, adapter, 'expected.json'))
  return cases.map((item) => ({
    adapter,
    prompt: item.prompt,
    promptIds: item.prompt_ids,
    tokenIds: item.token_ids,
    text: item.text,
  }))
}

export function baseCase(): DemoCase {
  const base = readJson<BaseFile>(join(DEMO_MODEL, 'expected.json'))
  return {
    adapter: null,
    prompt: base.prompt,
    promptIds: base.prompt_ids,
    tokenIds: base.greedy_200_ids.slice(base.prompt_ids.length),
    text: base.text.slice(base.prompt.length),
  }
}
