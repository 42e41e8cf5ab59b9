import type { Sites } from '../digest.ts'
import type { VirtualTokens } from '../primitive.ts'

/** What the files of any format compile to. */
export interface CompiledSites {
  /** The format's own name of the family. */
  readonly kind: string
  readonly sites: Sites
  readonly invocationTokenIds: readonly number[] | null
  readonly virtualTokens: VirtualTokens | null
  /** Doubts about a file that is served all the same. */
  readonly warnings: readonly string[]
}
