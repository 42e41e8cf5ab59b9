// The data of server-sent events, from a body read by fetch: EventSource can neither POST nor send a key.

/** One string an event, as its `data` lines say. Leaving the loop cancels the body. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let pending = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      pending += decoder.decode(value, { stream: !done })
      const events = pending.split(/\r?\n\r?\n/)
      pending = events.pop() ?? ''
      for (const event of events) {
        const data = dataOf(event)
        if (data !== null) yield data
      }
      if (done) return
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

/** null for comments and events without data. */
function dataOf(event: string): string | null {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'))
  return lines.length === 0 ? null : lines.map((line) => line.slice('data:'.length).replace(/^ /, '')).join('\n')
}
