// R10 and R11: what the prefix cache may share between adapters, and what it must never mix up.
import { fetchJson, fetchText, type Target } from '../client/target.ts'
import { judge, notJudged, onAdapters, type Preset, type PresetBench, percent, type Verdict, value } from './preset.ts'

export const SHARED_PREFIX: Preset = {
  id: 'R10',
  name: 'shared-prefix',
  title: 'one long shared prompt (8k tokens in the recipe), five adapters in turn',
  bar: 'cached tokens only where the adapter provably leaves the keys and values of the prefix unchanged; first token warm below cold',
  run: async (bench) => {
    const context = bench.context.server.maxModelLen ?? 8192 + 256
    const prefix = Math.min(8192, Math.floor(context * 0.75))
    const rest = Math.max(1, Math.floor(context * 0.05))
    const count = Math.min(5, bench.adapters.length)
    const load = [
      '--max-concurrency=1',
      '--arrival=closed',
      `--num-prompts=${bench.numPrompts(40)}`,
      `--prefix-len=${prefix}`,
      `--input-len=${prefix + rest}`,
      `--output-len=${rest}`,
      '--warmup=none',
      ...(count > 0 ? onAdapters(count, 'round-robin') : []),
    ]
    const result = await bench.run(`${prefix} shared tokens, ${count} adapters`, load)
    const { cold, warm } = result.lorikeet.cold_warm
    const cached = result.lorikeet.cached_prompt_tokens
    const share = cached === null ? null : cached / Math.max(1, value(result, 'total_input_tokens'))
    return [
      notJudged(
        share === null
          ? 'the server does not report cached tokens'
          : `${percent(share)} of prompt tokens came from the prefix cache`,
      ),
      ...(cold.count > 0
        ? [judge(warm.median < cold.median, `TTFT p50 ${cold.median.toFixed(1)} ms first, ${warm.median.toFixed(1)} ms after`)]
        : []),
    ]
  },
}

/** Name under which the two adapters are loaded in turn. */
const ALIAS = 'bench-identity'
const FRESH = 'bench-identity-fresh'

/** Requests that run while the alias is reloaded. */
const BACKGROUND_REQUESTS = 8
const ANSWER_TOKENS = 24

export const IDENTITY: Preset = {
  id: 'R11',
  name: 'identity',
  title: 'the alias of an adapter is reloaded with other weights while requests run and the prefix cache is warm',
  bar: 'after the reload the answer is that of a cold load, bit for bit; running requests finish',
  run: async (bench) => {
    const roots = await adapterRoots(bench)
    const [first, second] = roots
    if (first === undefined || second === undefined) return [notJudged('needs two adapters whose path /v1/models tells')]
    const { target } = bench.context
    try {
      const loaded = await load(target, ALIAS, first, false)
      if (loaded !== null) return [notJudged(`the server does not load adapters at run time: ${loaded}`)]
      return await reloadWhileRunning(bench, target, second)
    } finally {
      for (const name of [ALIAS, FRESH]) await fetchText(target, 'POST', '/v1/unload_lora_adapter', { lora_name: name })
    }
  },
}

async function reloadWhileRunning(bench: PresetBench, target: Target, second: string): Promise<readonly Verdict[]> {
  const pool = bench.context.server.tokenPool
  const prompt =
    pool.length > 0 ? Array.from({ length: 48 }, (_, index) => pool[(index * 7) % pool.length]) : 'one two three '.repeat(16)
  const ask = (model: string): Promise<string | null> => answer(target, model, prompt)
  const before = await ask(ALIAS)
  const running = Array.from({ length: BACKGROUND_REQUESTS }, () => ask(ALIAS))
  const reloaded = await load(target, ALIAS, second, true)
  const after = await ask(ALIAS)
  const finished = (await Promise.all(running)).filter((text) => text !== null).length
  await load(target, FRESH, second, false)
  const cold = await ask(FRESH)
  if (reloaded !== null) return [judge(false, `the reload in place failed: ${reloaded}`)]
  return [
    judge(after !== null && after === cold, 'the answer after the reload is that of a cold load'),
    judge(
      finished === BACKGROUND_REQUESTS,
      `${finished} of ${BACKGROUND_REQUESTS} requests that ran during the reload finished`,
    ),
    ...(before === cold ? [notJudged('both adapters answer alike: this prompt cannot tell them apart')] : []),
  ]
}

async function adapterRoots(bench: PresetBench): Promise<readonly string[]> {
  const list = (await fetchJson(bench.context.target, 'GET', '/v1/models')) as {
    data?: readonly { id?: unknown; root?: unknown }[]
  } | null
  return (list?.data ?? []).flatMap(({ id, root }) =>
    typeof id === 'string' && typeof root === 'string' && bench.adapters.includes(id) ? [root] : [],
  )
}

/** null = loaded; else what the server said. */
async function load(target: Target, name: string, path: string, inPlace: boolean): Promise<string | null> {
  const body = { lora_name: name, lora_path: path, load_inplace: inPlace }
  const { status, body: text } = await fetchText(target, 'POST', '/v1/load_lora_adapter', body, 60_000)
  return status === 200 ? null : `status ${status} ${text.slice(0, 200)}`
}

async function answer(target: Target, model: string, prompt: unknown): Promise<string | null> {
  const body = { model, prompt, max_tokens: ANSWER_TOKENS, temperature: 0, ignore_eos: true, logprobs: 1 }
  const { status, body: text } = await fetchText(target, 'POST', '/v1/completions', body, 120_000)
  if (status !== 200) return null
  const { choices } = JSON.parse(text) as {
    choices?: readonly { text?: unknown; logprobs?: { token_logprobs?: unknown } | null }[]
  }
  return JSON.stringify([choices?.[0]?.text, choices?.[0]?.logprobs?.token_logprobs ?? null])
}
