// The console: connects the parts of the page. Everything it knows comes from the server's public API.

import { AdapterPicker } from './adapter-picker.ts'
import { ApiKey } from './api-key.ts'
import { Comparison } from './comparison.ts'
import { Composer } from './composer.ts'
import { copyText } from './copy-text.ts'
import { find, setText } from './dom.ts'
import { type EngineReport, pollEngine, type ServerStatus } from './engine-poll.ts'
import { EngineView } from './engine-view.ts'
import { curlCommand, generationRequest } from './generation-request.ts'
import { Selection } from './selection.ts'
import { type ModelCard, ServerClient, ServerError } from './server-client.ts'
import { readStored, writeStored } from './stored-settings.ts'
import { connectThemeButton } from './theme.ts'

/** Picked on a first visit: the base model and this many adapters, so that Send compares something. */
const FIRST_ADAPTERS = 2
const SELECTED = 'selected'
const STATUS_TEXTS: Readonly<Record<ServerStatus, string>> = {
  connecting: 'Connecting',
  ready: 'Ready',
  unhealthy: 'Not ready',
  unreachable: 'Not reachable',
}

let isConnected = false
let baseName = ''
/** Asking again waits for another key. */
let isKeyRefused = false
let numAdapters: number | null = null

const announcer = find(document, '#announcer', HTMLElement)
const columns = find(document, '#columns', HTMLElement)
const notice = find(document, '#notice', HTMLElement)
const apiKey = new ApiKey(find(document, '#key-dialog', HTMLDialogElement))
const client = new ServerClient(() => apiKey.value)
const selection = new Selection()
const pickerElement = find(document, '#picker', HTMLDetailsElement)
const picker = new AdapterPicker(pickerElement, selection)
const engineView = new EngineView(
  find(document, '#engine', HTMLElement),
  (name) => selection.find(name ?? baseName)?.colour ?? null,
)
const composer = new Composer(find(document, '#composer', HTMLFormElement), {
  onSend: (settings) => comparison.send(settings),
  onStop: () => comparison.stopAll(),
})
const comparison: Comparison = new Comparison({
  columns,
  announcer,
  client,
  selection,
  settings: () => composer.settings(),
  onRunningChange: (isRunning) => composer.setIsRunning(isRunning),
  onKeyRefused: () => apiKey.ask(true),
  onCopy: (text) => void copyText(text, announcer),
  onCopyCurl: (model, settings) => {
    const command = curlCommand(document.baseURI, generationRequest(model, settings), apiKey.value !== null)
    void copyText(command, announcer)
  },
})

/** Reads the list of models; asks for a key when the server does. */
async function loadModels(): Promise<void> {
  try {
    const models = listed(await client.models())
    const base = models[0]
    picker.setModels(models)
    if (!isConnected && base !== undefined) await connectTo(base, models)
    isConnected = true
    showNotice('')
  } catch (error) {
    showNotice(error instanceof ServerError ? error.message : `The page failed: ${String(error)}`)
    isKeyRefused = error instanceof ServerError && error.isKeyRefused
    if (isKeyRefused) apiKey.ask(true)
  }
}

/** What is asked once: the rest of the page's facts do not change while the server runs. */
async function connectTo(base: ModelCard, models: readonly ModelCard[]): Promise<void> {
  baseName = base.id
  setText(find(document, '#base-model', HTMLElement), baseName)
  restoreSelection(models)
  composer.setHasChat(await client.hasChatTemplate(base.id))
  setText(find(document, '#version', HTMLElement), `Lorikeet ${await client.version()}`)
}

/** The base model, by its first name only, then its adapters. */
function listed(models: readonly ModelCard[]): readonly ModelCard[] {
  const adapters = models.filter(({ parent }) => parent !== null)
  const base = models.find(({ parent }) => parent === null)
  return base === undefined ? adapters : [base, ...adapters]
}

function restoreSelection(models: readonly ModelCard[]): void {
  const known = new Set(models.map(({ id }) => id))
  const stored = storedSelection().filter((id) => known.has(id))
  const picked = stored.length > 0 ? stored : models.slice(0, 1 + FIRST_ADAPTERS).map(({ id }) => id)
  for (const id of picked) if (selection.find(id) === null) selection.toggle(id)
  selection.addEventListener('change', () => {
    writeStored(() => localStorage, SELECTED, JSON.stringify(selection.models.map(({ id }) => id)))
  })
}

function storedSelection(): readonly string[] {
  try {
    const ids: unknown = JSON.parse(readStored(() => localStorage, SELECTED) ?? '[]')
    return Array.isArray(ids) ? ids.filter((id) => typeof id === 'string') : []
  } catch {
    return []
  }
}

function showNotice(text: string): void {
  setText(notice, text)
  notice.hidden = text === ''
}

function showReport({ status, history, note }: EngineReport): void {
  const element = find(document, '#server-status', HTMLElement)
  setText(element, STATUS_TEXTS[status])
  element.dataset['status'] = status
  engineView.show(history, note)
  const numListed = history.latest?.numAdapters ?? null
  // Somebody loaded or unloaded an adapter, or the server came back.
  if (status === 'ready' && (!isConnected || numListed !== numAdapters) && !isKeyRefused) void loadModels()
  numAdapters = numListed
}

function onKey(event: KeyboardEvent): void {
  if (document.querySelector('dialog[open]') !== null) return
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement
  if (event.key === 'Escape') comparison.stopAll()
  else if (event.key === '/' && !isTyping) {
    event.preventDefault()
    picker.focusSearch()
  }
}

function showSelection(): void {
  composer.setCanSend(selection.models.length > 0)
  find(document, '#empty', HTMLElement).hidden = selection.models.length > 0
}

// On a phone the list would push prompt and answers off the screen.
pickerElement.open = !matchMedia('(max-width: 760px)').matches
connectThemeButton(find(document, '#theme-button', HTMLButtonElement))
find(document, '#key-button', HTMLButtonElement).addEventListener('click', () => apiKey.ask(false))
find(document, '#refresh-models', HTMLButtonElement).addEventListener('click', () => void loadModels())
document.addEventListener('keydown', onKey)
selection.addEventListener('change', showSelection)
apiKey.addEventListener('change', () => {
  isKeyRefused = false
  void loadModels()
})
showSelection()
void loadModels().then(() => pollEngine(client, showReport))
