import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { runHubGoldenSuite } from '../support/hub-golden-suite.ts'

runHubGoldenSuite({
  name: 'reference',
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createReferenceBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes }),
})
