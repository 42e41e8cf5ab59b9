// Tables of factors, shifts and input scales with one row an adapter of the step; row 0 is the base model.

import type { StepPlan } from '../../core/step-plan.ts'
import type { ModelSource } from '../../model/model-source.ts'
import { adaptedGroups, type DecoderLayout, groupBias, type LinearGroup } from './decoder-layout.ts'
import type { Feeds } from './feeds.ts'
import type { ResidentAdapter, ResidentAdapters } from './resident-adapters.ts'

interface NormBase {
  readonly site: string
  /** Weight with the offset of NormSpec. */
  readonly factor: Float32Array
  readonly shift: Float32Array
}

export class VectorTables {
  readonly #groups: readonly { readonly group: LinearGroup; readonly bias: Float32Array }[]
  readonly #norms: readonly NormBase[]
  readonly #weightOffset: number
  readonly #adapters: ResidentAdapters
  /** Adapters the tables in `feeds` were written for; they change rarely from step to step. */
  #written: readonly ResidentAdapter[] = []
  #hasWritten = false

  constructor(model: ModelSource, layout: DecoderLayout, adapters: ResidentAdapters) {
    this.#adapters = adapters
    this.#weightOffset = model.spec.norm.weightOffset
    this.#groups = adaptedGroups(layout).map((group) => ({
      group,
      bias: groupBias(model, group) ?? new Float32Array(group.numOut),
    }))
    const sites = [...model.modules.values()].filter(({ kind }) => kind === 'norm').flatMap(({ parts }) => parts)
    this.#norms = sites.map(({ site }) => {
      const factor = model.read(site).map((weight) => weight + this.#weightOffset)
      const hasBias = model.parameters.has(`${site}.bias`)
      return { site, factor, shift: hasBias ? model.read(`${site}.bias`) : new Float32Array(factor.length) }
    })
  }

  feed(feeds: Feeds, plan: StepPlan): void {
    const residents: ResidentAdapter[] = []
    const entries = feeds.int('entries', [plan.numTokens])
    for (let token = 0; token < plan.numTokens; token++) {
      const resident = this.#adapters.find(plan.adapterSlotOfToken[token] as number)
      entries[token] = resident?.hasVectors ? entryOf(residents, resident) : 0
    }
    const logitEntries = feeds.int('logitEntries', [plan.numLogitRows])
    for (let i = 0; i < plan.numLogitRows; i++) logitEntries[i] = entries[plan.logitRows[i] as number] as number
    const isSame = this.#hasWritten && residents.length === this.#written.length
    const isWritten = isSame && residents.every((resident, i) => resident === this.#written[i])
    this.#writeLinears(feeds, residents, isWritten)
    this.#writeNorms(feeds, residents, isWritten)
    this.#written = residents
    this.#hasWritten = true
  }

  #writeLinears(feeds: Feeds, residents: readonly ResidentAdapter[], isWritten: boolean): void {
    for (const { group, bias } of this.#groups) {
      const { name, numIn, numOut } = group
      const factor = feeds.float(`${name}.factor`, [residents.length + 1, numOut])
      const shift = feeds.float(`${name}.shift`, [residents.length + 1, numOut])
      const inputScales = group.parts.map(({ site }) => feeds.float(`${site}.inputScale`, [residents.length + 1, numIn]))
      if (isWritten) continue
      factor.fill(1)
      for (let entry = 0; entry <= residents.length; entry++) shift.set(bias, entry * numOut)
      for (const inputScale of inputScales) inputScale.fill(1)
      residents.forEach(({ vectors }, i) => {
        let offset = (i + 1) * numOut
        group.parts.forEach(({ site, numOut: width }, part) => {
          const own = vectors.get(site)
          if (own?.factor) factor.set(own.factor, offset)
          if (own?.shift) shift.set(own.shift, offset)
          if (own?.inputScale) inputScales[part]?.set(own.inputScale, (i + 1) * numIn)
          offset += width
        })
      })
    }
  }

  #writeNorms(feeds: Feeds, residents: readonly ResidentAdapter[], isWritten: boolean): void {
    for (const base of this.#norms) {
      const width = base.factor.length
      const factor = feeds.float(`${base.site}.factor`, [residents.length + 1, width])
      const shift = feeds.float(`${base.site}.shift`, [residents.length + 1, width])
      if (isWritten) continue
      factor.set(base.factor)
      shift.set(base.shift)
      residents.forEach(({ primitives }, i) => {
        const own = primitives.get(base.site)
        const weight = own?.replace?.weight
        const bias = own?.vectors.get('bias') ?? base.shift
        const scale = own?.vectors.get('output-scale')
        const added = own?.vectors.get('shift')
        for (let j = 0; j < width; j++) {
          const w = weight === undefined ? (base.factor[j] as number) : (weight[j] as number) + this.#weightOffset
          const m = scale?.[j] ?? 1
          factor[(i + 1) * width + j] = w * m
          shift[(i + 1) * width + j] = (bias[j] as number) * m + (added?.[j] ?? 0)
        }
      })
    }
  }
}

/** 1 for the first adapter; adds it where it is new. */
function entryOf(residents: ResidentAdapter[], resident: ResidentAdapter): number {
  const index = residents.indexOf(resident)
  return index === -1 ? residents.push(resident) : index + 1
}
