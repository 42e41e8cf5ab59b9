// GET /v1/models and /v1/models/{id}: the base model's names, then the adapters.

import type { FastifyInstance } from 'fastify'
import type { AdapterInfo } from '../../../engine/messages.ts'
import { LorikeetError } from '../../../errors.ts'
import type { ServerContext } from '../../generation/server-context.ts'

export function registerModels(app: FastifyInstance, context: ServerContext): void {
  app.get('/v1/models', async () => ({
    object: 'list',
    data: [
      ...context.config.model.servedNames.map((name) => baseCard(name, context)),
      ...context.engine.adapters().map((adapter) => adapterCard(adapter, context)),
    ],
  }))

  // A wildcard, because names may hold slashes.
  app.get<{ Params: { '*': string } }>('/v1/models/*', async (request) => {
    const name = request.params['*']
    if (context.resolver.isBaseName(name)) return baseCard(name, context)
    const adapter = context.engine.findAdapter(name)
    if (adapter === null) throw new LorikeetError('MODEL_NOT_FOUND', { model: name }, { field: 'model' })
    return adapterCard(adapter, context)
  })
}

function baseCard(name: string, { config, engine, startedAtS }: ServerContext): Record<string, unknown> {
  return card(name, startedAtS, config.model.path, null, engine.model.maxModelLen)
}

/** Of an adapter null stands for its parent's length, as in vLLM, unless tokens of its own take some of that. */
function adapterCard(adapter: AdapterInfo, { engine, resolver }: ServerContext): Record<string, unknown> {
  const { name, path, loadedAtMs, numVirtualTokens } = adapter
  const maxModelLen = numVirtualTokens === 0 ? null : engine.model.maxModelLen - numVirtualTokens
  return card(name, Math.floor(loadedAtMs / 1000), path, resolver.baseName, maxModelLen)
}

function card(
  id: string,
  created: number,
  root: string,
  parent: string | null,
  maxModelLen: number | null,
): Record<string, unknown> {
  return {
    id,
    object: 'model',
    created,
    owned_by: 'lorikeet',
    root,
    parent,
    max_model_len: maxModelLen,
    permission: [
      {
        id: `modelperm-${id}`,
        object: 'model_permission',
        created,
        allow_create_engine: false,
        allow_sampling: true,
        allow_logprobs: true,
        allow_search_indices: false,
        allow_view: true,
        allow_fine_tuning: false,
        organization: '*',
        group: null,
        is_blocking: false,
      },
    ],
  }
}
