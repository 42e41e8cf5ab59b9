import { createOnnxBackend } from '../../src/backend/onnx/onnx-backend.ts'
import { runAdapterGoldenSuite } from '../support/adapter-golden-suite.ts'

runAdapterGoldenSuite({
  name: 'onnx',
  create: ({ model, blockSize, numBlocks, adapterBytes }) =>
    createOnnxBackend({ model, blockSize, kvCache: { numBlocks }, adapterBytes, numThreads: 1 }),
})
