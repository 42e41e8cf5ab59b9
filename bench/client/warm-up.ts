import { LorikeetError } from '../../src/errors.ts'
import type { BenchOptions } from '../options.ts'
import type { WorkloadOptions } from '../workload/plan-requests.ts'
import { fetchText, type Target } from './target.ts'

/** Requests the warm-up has in flight: enough to be quick, few enough to load nothing. */
const WARMUP_CONCURRENCY = 8
const WARMUP_TOKENS = 2

/** One short request per adapter (or one in all): its first load is another subject, measured with `--warmup none`. */
export async function warmUp(options: BenchOptions, target: Target, workload: WorkloadOptions): Promise<readonly string[]> {
  if (options.warmup === 'none') return []
  const named = workload.popularity.kind === 'split' ? workload.popularity.shares.map(({ name }) => name) : workload.adapters
  const models = [workload.baseModel, ...(options.warmup === 'each' ? named : [])]
  const waiting = [...models]
  const worker = async (): Promise<void> => {
    for (let model = waiting.shift(); model !== undefined; model = waiting.shift()) {
      const { status, body } = await fetchText(target, 'POST', options.endpoint, warmUpBody(workload, model), 120_000)
      if (status !== 200) {
        throw new LorikeetError('BENCH_FAILED', {
          reason: `the warm-up request for ${model} got ${status === 0 ? 'no answer' : `status ${status}`}: ${body.slice(0, 300)}`,
        })
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(WARMUP_CONCURRENCY, models.length) }, worker))
  return options.warmup === 'each' ? named : []
}

function warmUpBody(workload: WorkloadOptions, model: string): unknown {
  const { tokenPool } = workload.prompts
  const prompt = tokenPool.length > 0 ? tokenPool.slice(0, 4) : 'one two three four'
  if (!workload.isChat) return { model, prompt, max_tokens: WARMUP_TOKENS, temperature: 0 }
  return { model, messages: [{ role: 'user', content: 'one two three four' }], max_completion_tokens: WARMUP_TOKENS }
}
