import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { type ContractSubject, runContractSuite } from '../support/contract.ts'
import { runGoldenSuite, runPrimitiveSuite } from '../support/golden-suite.ts'

const subject: ContractSubject = {
  name: 'onnx',
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createOnnxBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes, numThreads: 1 }),
}

runContractSuite(subject)
runGoldenSuite(subject)
runPrimitiveSuite(subject)
