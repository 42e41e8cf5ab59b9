import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { runAdapterGoldenSuite } from '../support/adapter-golden-suite.ts'

runAdapterGoldenSuite({
  name: 'reference',
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createReferenceBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes }),
})
