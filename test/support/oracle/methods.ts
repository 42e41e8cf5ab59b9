// Every method whose expected values come from the oracle.

import { BOTTLENECK_METHODS } from './bottleneck-methods.ts'
import { DELTA_METHODS } from './delta-methods.ts'
import { HYBRID_METHODS } from './hybrid-methods.ts'
import { LOW_RANK_METHODS } from './low-rank-methods.ts'
import type { OracleMethod } from './method.ts'
import { PROMPT_METHODS } from './prompt-methods.ts'
import { VECTOR_METHODS } from './vector-methods.ts'

export const ORACLE_METHODS: readonly OracleMethod[] = [
  ...VECTOR_METHODS,
  ...LOW_RANK_METHODS,
  ...BOTTLENECK_METHODS,
  ...PROMPT_METHODS,
  ...HYBRID_METHODS,
  ...DELTA_METHODS,
]
