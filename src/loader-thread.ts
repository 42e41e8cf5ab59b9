// Thread entry: opens the model's headers and serves adapter loads (adapter/adapter-loader.ts).

import { parentPort, workerData } from 'node:worker_threads'
import { serveLoads } from './adapter/adapter-loader.ts'
import type { LoaderWorkerData } from './adapter/loader-messages.ts'
import { invariant } from './core/invariant.ts'
import { openModel } from './model/open-model.ts'

invariant(parentPort !== null, 'loader-thread runs as a worker')
const { modelPath } = workerData as LoaderWorkerData
serveLoads(parentPort, () => openModel(modelPath))
