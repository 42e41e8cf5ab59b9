// What the user set, as a request of the server's public API: the console has no API of its own.

export interface GenerationSettings {
  readonly mode: 'completion' | 'chat'
  readonly prompt: string
  /** Chat only; '' = none. */
  readonly system: string
  readonly temperature: number
  readonly topP: number
  readonly maxTokens: number
  /** null = another one for each request. */
  readonly seed: number | null
}

export interface GenerationRequest {
  /** Relative to the page, so that a proxy may mount the server below a path. */
  readonly path: 'v1/completions' | 'v1/chat/completions'
  readonly body: Readonly<Record<string, unknown>>
}

/** Usage in each chunk tells how many tokens it stands for: a chunk may hold several. */
const STREAM_OPTIONS = { include_usage: true, continuous_usage_stats: true } as const

export function generationRequest(model: string, settings: GenerationSettings): GenerationRequest {
  const { mode, prompt, system, temperature, topP, maxTokens, seed } = settings
  const sampling = { max_tokens: maxTokens, temperature, top_p: topP, ...(seed === null ? {} : { seed }) }
  const stream = { stream: true, stream_options: STREAM_OPTIONS }
  if (mode === 'completion') return { path: 'v1/completions', body: { model, prompt, ...sampling, ...stream } }
  const messages = [...(system === '' ? [] : [{ role: 'system', content: system }]), { role: 'user', content: prompt }]
  return { path: 'v1/chat/completions', body: { model, messages, ...sampling, ...stream } }
}

/** The same request for a POSIX shell. The key stays out of it: it names a variable that holds it. */
export function curlCommand(baseUrl: string, { path, body }: GenerationRequest, hasKey: boolean): string {
  const url = new URL(path, baseUrl)
  const key = hasKey ? ` \\\n  -H "authorization: Bearer $LORIKEET_API_KEY"` : ''
  return `curl -N ${shellQuoted(url.href)}${key} \\\n  -H 'content-type: application/json' \\\n  -d ${shellQuoted(JSON.stringify(body))}`
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
