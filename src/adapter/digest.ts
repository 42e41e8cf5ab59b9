// Identity of an adapter by content: SHA-256 over everything that can change an output, never over names, ids or file layout.
// Two files that compute the same function by the same numbers share a digest; any other two differ.

import { createHash, type Hash } from 'node:crypto'
import type { Hook, Primitive, Site, VirtualTokens } from './primitive.ts'
import { arraysOf, tagOf } from './primitive-arrays.ts'

export type Sites = ReadonlyMap<Site, readonly Primitive[]>

/** Hex digest of sites, weights, scales, scope and virtual tokens. */
export function digestOf(
  sites: Sites,
  invocationTokenIds: readonly number[] | null,
  virtualTokens: VirtualTokens | null = null,
): string {
  const hash = createHash('sha256')
  hash.update(JSON.stringify(invocationTokenIds))
  hashSites(hash, sites)
  if (virtualTokens !== null) hashValue(hash, 'virtual tokens', tagOf(virtualTokens), virtualTokens)
  return hash.digest('hex')
}

/**
 * Hex digest of what can change a key or a value; '' when nothing can, so that the base model's prefix cache is shared.
 *
 * Keys and values of layer l are functions of the residual stream entering layer l and of that layer's preAttn, k, v and kNorm.
 * Hence, with L layers:
 * - `lmHead` and `finalNorm` act after the last layer: no key or value reads them.
 * - In layer L-1, `q` and `qNorm` reach only attention scores, `o`, `postAttn`, `preMlp`, `gate`, `up`, `down` and `postMlp` and the
 *   hooks only the stream that leaves the layer, and no layer follows. `preAttn`, `k`, `v`, `kNorm` of layer L-1 do count.
 * - In an earlier layer every site changes the stream, and so the keys and values of the next layer.
 * - `embed` and `positions` change the stream from the start. (On a tied model the head has its own site, `lmHead`.)
 * - Virtual tokens are seen by every token behind them.
 *
 * Activated LoRA is hashed like any other: the engine applies the digest only to blocks at or after the activation start.
 */
export function kvDigestOf(sites: Sites, numLayers: number, virtualTokens: VirtualTokens | null = null): string {
  const relevant = new Map([...sites].filter(([site]) => canChangeKv(site, numLayers)))
  if (relevant.size === 0 && virtualTokens === null) return ''
  const hash = createHash('sha256')
  hashSites(hash, relevant)
  if (virtualTokens !== null) hashValue(hash, 'virtual tokens', tagOf(virtualTokens), virtualTokens)
  return hash.digest('hex')
}

const HOOKS: ReadonlySet<string> = new Set<Hook>(['attention', 'attnOut', 'mlpOut', 'blockOut'])

const LAST_LAYER_KV_ROLES = new Set(['preAttn', 'k', 'v', 'kNorm'])

function canChangeKv(site: Site, numLayers: number): boolean {
  if (site === 'lmHead' || site === 'finalNorm') return false
  const [scope, layer, role] = site.split('.')
  if (scope !== 'layers' || Number(layer) !== numLayers - 1) return true
  return LAST_LAYER_KV_ROLES.has(role ?? '')
}

function hashSites(hash: Hash, sites: Sites): void {
  const ordered = [...sites].sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [site, primitives] of ordered) {
    const tagged = primitives.map((primitive) => [tagOf(primitive), primitive] as const)
    // Bottlenecks of one hook act in the order listed; everything else at a site has a slot of its own or is a sum.
    if (!HOOKS.has(site.split('.')[2] ?? '')) tagged.sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [tag, primitive] of tagged) hashValue(hash, site, tag, primitive)
  }
}

function hashValue(hash: Hash, where: string, tag: string, value: unknown): void {
  hash.update(`\n${where} ${tag}\n`)
  for (const array of arraysOf(value)) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
}
