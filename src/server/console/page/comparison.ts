// The columns side by side: one a selected model, one prompt to all of them.

import { ConnectionLimit, MAX_STREAMS } from './connection-limit.ts'
import { setText } from './dom.ts'
import { type GenerationSettings, generationRequest } from './generation-request.ts'
import type { SelectedModel, Selection } from './selection.ts'
import { type ServerClient, ServerError } from './server-client.ts'
import { StreamColumn } from './stream-column.ts'

export interface ComparisonOptions {
  readonly columns: HTMLElement
  /** Read out by screen readers. */
  readonly announcer: HTMLElement
  readonly client: ServerClient
  readonly selection: Selection
  readonly settings: () => GenerationSettings
  onRunningChange(isRunning: boolean): void
  onKeyRefused(): void
  onCopy(text: string): void
  onCopyCurl(model: string, settings: GenerationSettings): void
}

/** More columns in one row are too narrow on common screens. */
const MAX_PER_ROW = 4

interface Entry {
  readonly model: SelectedModel
  readonly column: StreamColumn
  /** Of the stream that runs; null when none does. */
  abort: AbortController | null
  /** Of the last prompt sent, for curl. */
  sent: GenerationSettings | null
}

export class Comparison {
  readonly #options: ComparisonOptions
  readonly #connections = new ConnectionLimit(MAX_STREAMS)
  readonly #entries = new Map<string, Entry>()

  constructor(options: ComparisonOptions) {
    this.#options = options
    options.selection.addEventListener('change', () => this.#followSelection())
    this.#followSelection()
  }

  get numRunning(): number {
    return [...this.#entries.values()].filter(({ abort }) => abort !== null).length
  }

  /** What still runs of an earlier prompt is stopped. */
  send(settings: GenerationSettings): void {
    const entries = [...this.#entries.values()]
    for (const entry of entries) void this.#run(entry, settings)
    setText(this.#options.announcer, `Sent to ${entries.length} ${entries.length === 1 ? 'model' : 'models'}.`)
  }

  stopAll(): void {
    for (const { abort } of this.#entries.values()) abort?.abort()
  }

  async #run(entry: Entry, settings: GenerationSettings): Promise<void> {
    const { column } = entry
    entry.abort?.abort()
    const abort = new AbortController()
    entry.abort = abort
    entry.sent = settings
    column.begin(settings, this.#connections.isReached)
    this.#options.onRunningChange(true)
    let release = () => {}
    try {
      release = await this.#connections.acquire(abort.signal)
      column.send()
      for await (const chunk of this.#options.client.stream(generationRequest(entry.model.id, settings), abort.signal)) {
        if (entry.abort === abort) column.receive(chunk)
      }
      if (entry.abort === abort) column.end()
    } catch (error) {
      if (entry.abort === abort) this.#fail(column, error, abort.signal)
    } finally {
      release()
      if (entry.abort === abort) entry.abort = null
      this.#onEnded()
    }
  }

  #fail(column: StreamColumn, error: unknown, signal: AbortSignal): void {
    if (signal.aborted) {
      column.stop()
      return
    }
    column.fail(error)
    if (error instanceof ServerError && error.isKeyRefused) this.#options.onKeyRefused()
  }

  #onEnded(): void {
    const isRunning = this.numRunning > 0
    this.#options.onRunningChange(isRunning)
    if (isRunning) return
    const numFailed = [...this.#entries.values()].filter(({ column }) => column.state === 'failed').length
    setText(
      this.#options.announcer,
      numFailed === 0 ? 'All answers have ended.' : `All answers have ended, ${numFailed} failed.`,
    )
  }

  /** Keeps the columns of models that stay, with their text. */
  #followSelection(): void {
    const { selection, columns } = this.#options
    for (const [id, { abort, column }] of this.#entries) {
      if (selection.find(id) !== null) continue
      abort?.abort()
      column.element.remove()
      this.#entries.delete(id)
    }
    for (const model of selection.models) {
      if (this.#entries.has(model.id)) continue
      const entry = this.#createEntry(model)
      this.#entries.set(model.id, entry)
      columns.append(entry.column.element)
    }
    columns.style.setProperty('--per-row', String(columnsPerRow(selection.models.length)))
    this.#options.onRunningChange(this.numRunning > 0)
  }

  #createEntry(model: SelectedModel): Entry {
    const { selection, onCopy, onCopyCurl, settings } = this.#options
    const entry: Entry = {
      model,
      abort: null,
      sent: null,
      column: new StreamColumn(model, {
        onStop: () => entry.abort?.abort(),
        onRemove: () => selection.toggle(model.id),
        onCopyText: onCopy,
        onCopyCurl: () => onCopyCurl(model.id, entry.sent ?? settings()),
      }),
    }
    return entry
  }
}

/** Rows of equal length look better than a full row and a rest. */
function columnsPerRow(numColumns: number): number {
  return Math.max(1, Math.ceil(numColumns / Math.ceil(numColumns / MAX_PER_ROW)))
}
