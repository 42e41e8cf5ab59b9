import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { type ContractSubject, runContractSuite } from '../support/contract.ts'
import { runGoldenSuite } from '../support/golden-suite.ts'

const subject: ContractSubject = {
  name: 'reference',
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createReferenceBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes }),
}

runContractSuite(subject)
runGoldenSuite(subject)
