// The live view: what the engine does now and did in the last minute.

import { find, fromTemplate, setText } from './dom.ts'
import type { AdapterActivity, EngineHistory } from './engine-history.ts'
import { BASE_LABEL, type EngineSample, OTHER_LABEL } from './engine-sample.ts'
import { formatBytes, formatCount, formatMs, formatPercent, formatRate } from './number-format.ts'
import { Sparkline } from './sparkline.ts'

/** Rows of adapters at work; the rest is a count. */
const MAX_ACTIVITY_ROWS = 5
const UNKNOWN = '–'
/** Smallest heights of the charts: requests, tokens a second, and a whole cache. */
const REQUESTS_TOP = 4
const TOKENS_TOP = 50
const SHARE_TOP = 1

export class EngineView {
  readonly #root: HTMLElement
  readonly #activity: HTMLElement
  readonly #activityNote: HTMLElement
  readonly #requests: Sparkline
  readonly #tokens: Sparkline
  readonly #kv: Sparkline
  readonly #colourOf: (name: string | null) => number | null
  readonly #rows: readonly HTMLElement[]

  /** `colourOf` gives the colour of a selected model; null asks for the base model. */
  constructor(root: HTMLElement, colourOf: (name: string | null) => number | null) {
    this.#colourOf = colourOf
    this.#root = root
    this.#activity = find(root, '.activity-rows', HTMLElement)
    this.#activityNote = find(root, '.activity-note', HTMLElement)
    const spark = (tile: string, top: number) => new Sparkline(find(root, `${tile} svg`, SVGSVGElement), top)
    this.#requests = spark('.tile-requests', REQUESTS_TOP)
    this.#tokens = spark('.tile-tokens', TOKENS_TOP)
    this.#kv = spark('.tile-kv', SHARE_TOP)
    this.#rows = Array.from({ length: MAX_ACTIVITY_ROWS }, () => fromTemplate('activity-template'))
  }

  /** `note` says why there are no figures, '' when there are. */
  show(history: EngineHistory, note: string): void {
    const sample = history.latest
    setText(find(this.#root, '.engine-note', HTMLElement), note)
    this.#root.classList.toggle('is-stale', note !== '')
    if (sample === null) return
    this.#showRequests(sample, history)
    this.#showTokens(sample, history)
    this.#showKv(sample, history)
    this.#showMemory(sample)
    this.#showActivity(history.activity())
  }

  #showRequests({ numRunning, numWaiting }: EngineSample, history: EngineHistory): void {
    const ttftS = history.ratio('ttftSumS', 'ttftCount')
    this.#set('.tile-requests', count(numRunning), [
      `${count(numWaiting)} waiting`,
      ...(ttftS === null ? [] : [`first token ${formatMs(ttftS * 1000)}`]),
    ])
    this.#requests.draw(history.values('numRunning'))
  }

  #showTokens({ numGenerationTokens }: EngineSample, history: EngineHistory): void {
    const [output, prompt] = [history.rates('numGenerationTokens'), history.rates('numPromptTokens')]
    this.#set('.tile-tokens', rate(output.at(-1)), [
      `${rate(prompt.at(-1))}/s of prompts`,
      `${count(numGenerationTokens)} in all`,
    ])
    this.#tokens.draw(output)
  }

  #showKv({ kvUsage, kvTokens }: EngineSample, history: EngineHistory): void {
    const hits = history.ratio('numPrefixHitTokens', 'numPrefixQueryTokens')
    this.#set('.tile-kv', kvUsage === null ? UNKNOWN : formatPercent(kvUsage), [
      ...(kvTokens === null ? [] : [`of ${formatCount(kvTokens)}`]),
      ...(hits === null ? [] : [`${formatPercent(hits)} prefix hits`]),
    ])
    this.#kv.draw(history.values('kvUsage'))
  }

  #showMemory(sample: EngineSample): void {
    const { deviceBytes, deviceLimitBytes, hostBytes, numAdapters, numOnDevice } = sample
    this.#set('.tile-memory', deviceBytes === null ? UNKNOWN : formatBytes(deviceBytes), [
      ...(deviceLimitBytes === null ? [] : [`of ${formatBytes(deviceLimitBytes)}`]),
      ...(numOnDevice === null ? [] : [`${count(numOnDevice)} of ${count(numAdapters)} adapters`]),
      ...(hostBytes === null ? [] : [`${formatBytes(hostBytes)} in host memory`]),
    ])
    const share = deviceBytes === null || !deviceLimitBytes ? 0 : deviceBytes / deviceLimitBytes
    find(this.#root, '.tile-memory .meter-fill', HTMLElement).style.setProperty('--share', String(Math.min(1, share)))
  }

  #showActivity(activity: readonly AdapterActivity[]): void {
    const most = Math.max(1, ...activity.map(({ numTokens }) => numTokens))
    const shown = activity.slice(0, MAX_ACTIVITY_ROWS)
    for (const [index, adapter] of shown.entries()) {
      const row = this.#rows[index] as HTMLElement
      const colour = this.#colourOf(adapter.name === BASE_LABEL ? null : adapter.name)
      row.style.setProperty('--meter', colour === null ? 'var(--line-strong)' : `var(--plumage-${colour})`)
      showRow(row, adapter, most)
    }
    const rows = this.#rows.slice(0, shown.length)
    if (rows.length !== this.#activity.childElementCount) this.#activity.replaceChildren(...rows)
    const numMore = activity.length - shown.length
    const more = numMore > 0 ? `and ${formatCount(numMore)} more` : ''
    setText(this.#activityNote, activity.length === 0 ? 'None.' : more)
  }

  #set(tile: string, value: string, details: readonly string[]): void {
    setText(find(this.#root, `${tile} .tile-value`, HTMLElement), value)
    setText(find(this.#root, `${tile} .tile-details`, HTMLElement), details.join(' · '))
  }
}

function showRow(row: HTMLElement, { name, numTokens, isRunning, isWaiting }: AdapterActivity, most: number): void {
  const label = name === BASE_LABEL ? 'base model' : name === OTHER_LABEL ? 'other adapters' : name
  const nameElement = find(row, '.activity-name', HTMLElement)
  setText(nameElement, label)
  nameElement.title = label
  // The lists of running and waiting hold adapters alone.
  const isListed = name !== BASE_LABEL && name !== OTHER_LABEL
  const state = isRunning ? 'running' : isWaiting ? 'waiting' : isListed ? 'resting' : 'unknown'
  row.dataset['state'] = state
  setText(find(row, '.activity-state', HTMLElement), isListed ? state : '')
  setText(find(row, '.activity-tokens', HTMLElement), formatCount(numTokens))
  find(row, '.meter-fill', HTMLElement).style.setProperty('--share', String(numTokens / most))
}

function count(value: number | null): string {
  return value === null ? UNKNOWN : formatCount(value)
}

function rate(perSecond: number | null | undefined): string {
  return perSecond === null || perSecond === undefined ? UNKNOWN : formatRate(perSecond)
}
