// lorikeet.v1.Adapters

import { LorikeetError } from '../../errors.ts'
import type { ServerContext } from '../generation/server-context.ts'
import { fieldInvalid, fieldUnsupported } from '../request/fields.ts'
import { adapterMessage, unlistedAdapter } from './adapter-message.ts'
import { AdapterWatch } from './adapter-watch.ts'
import { initialMetadata, serverStreaming, unary } from './calls.ts'
import {
  type Adapter,
  AdapterState,
  type AdaptersServer,
  type ListRequest,
  type ListResponse,
  type LoadRequest,
} from './generated/lorikeet/v1/adapters.ts'

// A thousand adapters are some 200 KB.
const MAX_PAGE_SIZE = 1000
// A watch whose reader is this far behind ends, so that it begins anew with what there is then.
const MAX_PENDING_CHANGES = 10_000

export function adaptersService(context: ServerContext): AdaptersServer {
  const { logger, engine, adapterAdmin } = context
  const watch = new AdapterWatch(engine, adapterAdmin)
  return {
    load: unary(async (request) => ({ adapter: await load(request, context) }), logger),
    unload: unary(async ({ name }) => {
      assertRuntimeLoading(context)
      await adapterAdmin.unload(required(name, 'name'))
      logger.info({ adapter: name }, 'adapter unloaded')
      return {}
    }, logger),
    get: unary(({ name }) => {
      const info = engine.findAdapter(required(name, 'name'))
      if (info === null) throw new LorikeetError('ADAPTER_NOT_LOADED', { name }, { field: 'name' })
      return { adapter: adapterMessage(info) }
    }, logger),
    list: unary((request) => list(request, context), logger),
    watch: serverStreaming((call, info) => {
      call.sendMetadata(initialMetadata(info))
      const stop = watch.add((response) => {
        if (call.writableLength < MAX_PENDING_CHANGES) call.write(response)
        else call.end()
      })
      info.onCancelled(stop)
    }, logger),
  }
}

async function load(request: LoadRequest, context: ServerContext): Promise<Adapter> {
  assertRuntimeLoading(context)
  const { name, source, replace: isReplacing } = request
  required(name, 'name')
  if (source?.$case === 'hub' || source?.$case === 'url') {
    throw fieldUnsupported(source.$case, 'the server downloads nothing; put the adapter on its disk and send path')
  }
  if (request.pinned) throw fieldUnsupported('pinned', 'adapters are kept by use alone')
  const path = required(source?.path ?? '', 'path')
  const loading = context.adapterAdmin.load({ name, path, isReplacing })
  const done = loading.then((info) => {
    context.logger.info({ adapter: name, kind: info.kind, rank: info.maxRank, bytes: info.numBytes }, 'adapter loaded')
    return adapterMessage(info)
  })
  if (request.wait ?? true) return done
  done.catch((error: unknown) => context.logger.warn({ adapter: name, err: error }, 'adapter not loaded'))
  return unlistedAdapter(name, path, AdapterState.LOADING)
}

/** Throws RUNTIME_LOADING_DISABLED, or what says that the server takes no requests. */
export function assertRuntimeLoading({ config, generations }: ServerContext): void {
  if (!config.adapters.allowRuntimeUpdating) throw new LorikeetError('RUNTIME_LOADING_DISABLED')
  generations.assertReady()
}

/** A token is the id of the last adapter of a page: ids grow in load order and are never reused. */
function list({ pageSize, pageToken }: ListRequest, { engine }: ServerContext): ListResponse {
  if (pageSize < 0) throw fieldInvalid('page_size', 'must be an integer of at least 0')
  if (!/^\d{0,15}$/.test(pageToken)) throw fieldInvalid('page_token', 'must be the next_page_token of an earlier page')
  const size = pageSize === 0 ? MAX_PAGE_SIZE : Math.min(pageSize, MAX_PAGE_SIZE)
  const afterId = Number(pageToken)
  const rest = engine
    .adapters()
    .filter(({ id }) => id > afterId)
    .sort((a, b) => a.id - b.id)
  const page = rest.slice(0, size)
  const last = page.at(-1)
  return {
    adapters: page.map(adapterMessage),
    nextPageToken: last === undefined || page.length === rest.length ? '' : String(last.id),
  }
}

function required(value: string, field: string): string {
  if (value === '') throw fieldInvalid(field, 'is required')
  return value
}
