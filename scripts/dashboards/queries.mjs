// The PromQL that several boards share. `vllm:` families carry model_name, own ones only what their server is scraped as.

/** Selector of a vLLM-named family on the servers and models chosen. */
export const served = (family, ...matchers) =>
  `${family}{${['model_name=~"$model_name"', 'instance=~"$instance"', ...matchers].join(', ')}}`

/** Selector of an own or process family on the servers chosen. */
export const own = (family, ...matchers) => `${family}{${['instance=~"$instance"', ...matchers].join(', ')}}`

/** Selector of a family with an adapter label on the adapters chosen. */
export const ofAdapter = (family, ...matchers) => own(family, 'adapter=~"$adapter"', ...matchers)

export const rate = (selector) => `rate(${selector}[$__rate_interval])`

export const quantile = (q, buckets, by = []) =>
  `histogram_quantile(${q}, sum by (${['le', ...by].join(', ')}) (${rate(buckets)}))`

/** Mean of a histogram over the window; nothing was observed: no value. */
export const mean = (selectorOf, family, by) => {
  const sumBy = by === undefined ? 'sum' : `sum by (${by})`
  return `${sumBy}(${rate(selectorOf(`${family}_sum`))}) / (${sumBy}(${rate(selectorOf(`${family}_count`))}) > 0)`
}

/** p50, p90 and p99 of a histogram, and its mean. */
export const spread = (selectorOf, family) => [
  [quantile(0.5, selectorOf(`${family}_bucket`)), 'p50'],
  [quantile(0.9, selectorOf(`${family}_bucket`)), 'p90'],
  [quantile(0.99, selectorOf(`${family}_bucket`)), 'p99'],
  [mean(selectorOf, family), 'mean'],
]

export const TOP = 10
export const top = (expression) => `topk(${TOP}, ${expression})`
