import type { ModelSource } from '../../../model/model-source.ts'
import type { VirtualTokens } from '../../primitive.ts'
import type { SiteBuilder } from '../site-builder.ts'
import type { ConfigFields } from './config-fields.ts'
import type { Refuse } from './refuse.ts'
import type { TensorSet } from './tensor-set.ts'

/** What the compiler of one `peft_type` works with. It fills `sites`; what it leaves unread is refused by the caller. */
export interface PeftContext {
  readonly model: ModelSource
  readonly config: ConfigFields
  readonly tensors: TensorSet
  readonly sites: SiteBuilder
  readonly refuse: Refuse
  /** Doubts that do not change what is computed. */
  readonly warnings: string[]
}

/** What a type yields beside its sites. */
export interface PeftScope {
  /** Activated LoRA; null = everywhere. */
  readonly invocationTokenIds: readonly number[] | null
  readonly virtualTokens: VirtualTokens | null
}

export const EVERYWHERE: PeftScope = { invocationTokenIds: null, virtualTokens: null }
