import { createNullBackend } from '../../src/backend/null/null-backend.ts'
import { runContractSuite } from '../support/contract.ts'

runContractSuite({
  name: 'null',
  computes: false,
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createNullBackend({ vocabSize: model.spec.vocabSize, blockSize, numBlocks, adapterBytes, stepDelayMs: 0 }),
})
