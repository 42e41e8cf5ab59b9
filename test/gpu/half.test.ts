// The element types that are served: every golden within what rounding allows.

import { runAdapterGoldenSuite } from '../support/adapter-golden-suite.ts'
import { runGoldenSuite, runPrimitiveSuite } from '../support/golden-suite.ts'
import { cudaSubject, GPU_PROBLEM } from '../support/gpu.ts'

if (GPU_PROBLEM === null) {
  for (const dtype of ['bfloat16', 'float16'] as const) {
    const subject = cudaSubject(dtype)
    runGoldenSuite(subject)
    runPrimitiveSuite(subject)
    runAdapterGoldenSuite(subject)
  }
}
