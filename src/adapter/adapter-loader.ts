// The loader thread's side: every disk read, parse and norm of an adapter happens here, so that no load delays a step.

import type { MessagePort, Transferable } from 'node:worker_threads'
import { adapterId } from '../core/ids.ts'
import { asLorikeetError } from '../errors.ts'
import type { ModelSource } from '../model/model-source.ts'
import { buffersOf, type CompileResult, compileAdapter, compileMixture } from './compile.ts'
import type { LoadReply, LoadRequest } from './loader-messages.ts'

/** Answers load requests one after the other until the port closes. `openModel` runs once, with the first request. */
export function serveLoads(port: MessagePort, openModel: () => ModelSource): void {
  let model: ModelSource | null = null
  port.on('message', (request: LoadRequest) => {
    const { callId } = request
    try {
      model ??= openModel()
      const { adapter, warnings } = compile(request, model)
      const reply: LoadReply = { type: 'loaded', callId, adapter, warnings }
      port.postMessage(reply, buffersOf(adapter) as Transferable[])
    } catch (thrown) {
      const reply: LoadReply = { type: 'failed', callId, error: asLorikeetError(thrown).toWire() }
      port.postMessage(reply)
    }
  })
}

function compile({ adapterId: id, name, path, members }: LoadRequest, model: ModelSource): CompileResult {
  if (members === null) return compileAdapter(path, model, adapterId(id), name)
  return compileMixture({ kind: 'mixture', combine: 'sum', members }, model, adapterId(id), name)
}
