// lorikeet.v1.Inference

import type { ServerWritableStream } from '@grpc/grpc-js'
import type { AdapterInfo } from '../../engine/messages.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { readChatCall } from '../request/chat-call.ts'
import { readCompletionCall } from '../request/completion-call.ts'
import type { ReadCall } from '../request/generation-call.ts'
import { detokenize, tokenize } from '../request/tokenize-call.ts'
import { type CallInfo, callHead, initialMetadata, serverStreaming, unary } from './calls.ts'
import { generateBody, tokenizeBody } from './generate-body.ts'
import { responseOf } from './generate-format.ts'
import { GenerateStream } from './generate-stream.ts'
import type {
  GenerateRequest,
  GenerateResponse,
  GenerateStreamResponse,
  InferenceServer,
  Model,
} from './generated/lorikeet/v1/inference.ts'
import { toFailure } from './grpc-error.ts'
import { runGeneration } from './run-generation.ts'

export function inferenceService(context: ServerContext): InferenceServer {
  const { logger, engine } = context
  return {
    generate: unary((request, info) => generate(request, info, context), logger),
    generateStream: serverStreaming((call, info) => generateStream(call, info, context), logger),
    tokenize: unary(async (request) => {
      const { tokenIds, tokenStrings } = await tokenize(tokenizeBody(request), context)
      return { tokenIds: [...tokenIds], maxModelLen: engine.model.maxModelLen, tokenStrings: [...(tokenStrings ?? [])] }
    }, logger),
    detokenize: unary(async ({ model, tokenIds }) => {
      return { text: await detokenize({ model, tokens: tokenIds }, context) }
    }, logger),
    listModels: unary(() => ({ models: listModels(context) }), logger),
  }
}

async function generate(request: GenerateRequest, info: CallInfo, context: ServerContext): Promise<GenerateResponse | null> {
  const call = await readGenerate(request, info, false, context)
  const generation = await runGeneration(call.request, info, context.generations)
  return generation === null ? null : responseOf(generation, { result: call.result, sendsText: sendsText(request) })
}

async function generateStream(
  call: ServerWritableStream<GenerateRequest, GenerateStreamResponse>,
  info: CallInfo,
  context: ServerContext,
): Promise<void> {
  const { request, result, stream } = await readGenerate(call.request, info, true, context)
  // The client may have left while an adapter was loading.
  if (info.isCancelled) return
  const options = {
    result,
    sendsText: sendsText(call.request),
    interval: stream?.interval ?? 1,
    sendsEveryToken: result.returnsTokenIds || context.text.tokenizer === null,
  }
  const events = new GenerateStream(call, options, (error) => {
    call.emit('error', toFailure(error, info.requestId, context.logger))
  })
  const generation = context.generations.start(request, events)
  info.span = generation.span
  call.sendMetadata(initialMetadata(info))
  info.onCancelled(() => generation.abort())
  events.attach(generation)
}

function readGenerate(request: GenerateRequest, info: CallInfo, isStream: boolean, context: ServerContext): Promise<ReadCall> {
  context.generations.assertReady()
  const { isChat, body } = generateBody(request, isStream)
  if (isChat) return readChatCall(body, callHead('chatcmpl-', info), context)
  return readCompletionCall(body, callHead('cmpl-', info), context)
}

function sendsText({ output }: GenerateRequest): boolean {
  return output?.text ?? true
}

function listModels({ config, engine, resolver, startedAtS }: ServerContext): Model[] {
  const base = (id: string): Model => ({
    id,
    created: BigInt(startedAtS),
    ownedBy: 'lorikeet',
    root: config.model.path,
    parent: '',
    maxModelLen: engine.model.maxModelLen,
  })
  const adapter = ({ name, path, loadedAtMs, numVirtualTokens }: AdapterInfo): Model => ({
    id: name,
    created: BigInt(Math.floor(loadedAtMs / 1000)),
    ownedBy: 'lorikeet',
    root: path,
    parent: resolver.baseName,
    // 0 stands for the parent's, unless tokens of the adapter's own take some of that.
    maxModelLen: numVirtualTokens === 0 ? 0 : engine.model.maxModelLen - numVirtualTokens,
  })
  return [...config.model.servedNames.map(base), ...engine.adapters().map(adapter)]
}
