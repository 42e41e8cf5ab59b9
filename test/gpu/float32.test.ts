// In float32 the GPU must meet the tolerances of the CPU backends: what differs is the order of sums, nothing else.

import { runAdapterGoldenSuite } from '../support/adapter-golden-suite.ts'
import { runContractSuite } from '../support/contract.ts'
import { runGoldenSuite, runPrimitiveSuite } from '../support/golden-suite.ts'
import { cudaSubject, GPU_PROBLEM } from '../support/gpu.ts'

if (GPU_PROBLEM === null) {
  const subject = cudaSubject('float32')
  runContractSuite(subject)
  runGoldenSuite(subject)
  runPrimitiveSuite(subject)
  runAdapterGoldenSuite(subject)
  runContractSuite(cudaSubject('float32', { usesGraphs: false }))
}
