// The table of docs/metrics.md, from the families themselves; scripts/docs.mjs writes it and a test compares it.

import type { EngineSnapshot } from './records.ts'
import { ServerMetrics } from './server-metrics.ts'
import type { FamilyInfo } from './text-family.ts'

const IDLE: EngineSnapshot = {
  numRunning: 0,
  numWaiting: 0,
  numWaitingForAdapter: 0,
  numBlocks: 0,
  numUsedBlocks: 0,
  numPreemptions: 0,
  numPrefixQueryTokens: 0,
  numPrefixHitTokens: 0,
  numPromptTokens: 0,
  numCachedPromptTokens: 0,
  numGenerationTokens: 0,
  runningAdapters: [],
  waitingAdapters: [],
  numWaitingByAdapter: [],
}

/** Every family of a server with default options, those of the process left out. */
export function allFamilies(): FamilyInfo[] {
  const model = { modelName: '', modelType: '', backend: '', dtype: '', maxModelLen: 1, blockSize: 1, numBlocks: 1 }
  const metrics = new ServerMetrics({
    model: { ...model, isPrefixCachingEnabled: true },
    build: { version: '', revision: '' },
    maxAdapters: 1,
    adapterLimits: { host: 0, device: 0 },
    maxTrackedAdapters: 0,
    hasLegacyNames: true,
    loraInfo: 'running',
    snapshot: () => IDLE,
    adapters: { list: () => [], isListed: () => false, numLoading: () => 0 },
  })
  return metrics.describe()
}

/** One row a family, by name within each prefix. */
export function metricsTable(): string {
  const rows = allFamilies()
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, type, labelNames, help }) => {
      const labels = labelNames.map((label) => `\`${label}\``).join(', ')
      return `| \`${name}\` | ${type} | ${labels} | ${help} |`
    })
  return ['| name | type | labels | meaning |', '| --- | --- | --- | --- |', ...rows].join('\n')
}
