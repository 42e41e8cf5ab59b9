// inference.GRPCInferenceService: KServe's Open Inference Protocol v2 and what Triton adds to it.

import { LorikeetError } from '../../../errors.ts'
import type { ServerContext } from '../../generation/server-context.ts'
import { fieldInvalid } from '../../request/fields.ts'
import { assertRuntimeLoading } from '../adapters-service.ts'
import { type CallInfo, unary } from '../calls.ts'
import type {
  GRPCInferenceServiceServer,
  ModelInferRequest,
  ModelInferResponse,
  RepositoryIndexResponse_ModelIndex,
  RepositoryModelLoadRequest,
} from '../generated/inference/grpc_service.ts'
import { isReady } from '../health.ts'
import { runGeneration } from '../run-generation.ts'
import { checkVersion, MODEL_VERSION, readInferCall } from './infer-request.ts'
import { InferResponses } from './infer-response.ts'
import { InferStatistics } from './infer-statistics.ts'
import { modelStreamInfer } from './infer-stream.ts'
import { modelConfig, modelMetadata } from './model-metadata.ts'

const EXTENSIONS = ['model_repository', 'model_configuration', 'statistics', 'parameters', 'binary_tensor_data', 'generate']

export function kserveService(context: ServerContext): GRPCInferenceServiceServer {
  const { logger, engine, resolver, generations, version } = context
  const statistics = new InferStatistics(resolver.baseName)
  generations.observe(statistics)
  const isKnown = (name: string) => resolver.isBaseName(name) || engine.findAdapter(name) !== null
  const checkModel = (name: string, modelVersion: string) => {
    checkVersion(name, modelVersion)
    if (!isKnown(name)) throw new LorikeetError('MODEL_NOT_FOUND', { model: name }, { field: 'name' })
  }
  const names = () => [resolver.baseName, ...engine.adapters().map((adapter) => adapter.name)]
  return {
    serverLive: unary(() => ({ live: true }), logger),
    serverReady: unary(() => ({ ready: isReady(generations) }), logger),
    modelReady: unary(({ name, version: asked }) => {
      return { ready: isReady(generations) && isKnown(name) && (asked === '' || asked === MODEL_VERSION) }
    }, logger),
    serverMetadata: unary(() => ({ name: 'lorikeet', version, extensions: EXTENSIONS }), logger),
    modelMetadata: unary((request) => {
      checkModel(request.name, request.version)
      return modelMetadata(request.name)
    }, logger),
    modelConfig: unary((request) => {
      checkModel(request.name, request.version)
      return { config: modelConfig(request.name) }
    }, logger),
    modelInfer: unary((request, info) => modelInfer(request, info, context), logger),
    modelStreamInfer: (call) => modelStreamInfer(call, context),
    modelStatistics: unary((request) => {
      if (request.name !== '') checkModel(request.name, request.version)
      return { modelStats: statistics.report(request.name === '' ? names() : [request.name], isKnown) }
    }, logger),
    repositoryIndex: unary(({ ready }) => {
      const models = names().map((name) => indexEntry(name, isReady(generations)))
      return { models: ready ? models.filter(({ state }) => state === 'READY') : models }
    }, logger),
    repositoryModelLoad: unary(async (request) => {
      await loadModel(request, context)
      return {}
    }, logger),
    repositoryModelUnload: unary(async ({ modelName }) => {
      assertRuntimeLoading(context)
      await context.adapterAdmin.unload(modelName)
      logger.info({ adapter: modelName }, 'adapter unloaded')
      return {}
    }, logger),
  }
}

async function modelInfer(
  request: ModelInferRequest,
  info: CallInfo,
  context: ServerContext,
): Promise<ModelInferResponse | null> {
  const call = await readInferCall(request, info, false, context)
  const generation = await runGeneration(call.request, info, context.generations)
  return generation === null ? null : new InferResponses(call, generation.choices.length).take(generation, true)
}

function indexEntry(name: string, isServing: boolean): RepositoryIndexResponse_ModelIndex {
  const reason = isServing ? '' : 'the server takes no requests'
  return { name, version: MODEL_VERSION, state: isServing ? 'READY' : 'UNAVAILABLE', reason }
}

/** Loads from the parameter `lora_path`, or without it once more from where it was. */
async function loadModel({ modelName: name, parameters }: RepositoryModelLoadRequest, context: ServerContext): Promise<void> {
  assertRuntimeLoading(context)
  const { adapterAdmin, engine, logger, resolver } = context
  // Triton's clients load before they use: the base model is always there.
  if (resolver.isBaseName(name)) return
  const choice = parameters['lora_path']?.parameterChoice
  const path = choice?.$case === 'stringParam' ? choice.stringParam : engine.findAdapter(name)?.path
  if (path === undefined) throw fieldInvalid('lora_path', 'is required as a string parameter for an adapter not loaded yet')
  const info = await adapterAdmin.load({ name, path, isReplacing: true })
  logger.info({ adapter: name, kind: info.kind, rank: info.maxRank, bytes: info.numBytes }, 'adapter loaded')
}
