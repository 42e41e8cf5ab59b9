// The registry of every error this program throws on purpose: code, message, HTTP and gRPC status, and vLLM's type name.
// Messages say what to do. `{name}` is filled from the params. docs/errors.md lists them; a test ties the two together.

interface ErrorEntry {
  readonly message: string
  readonly http: number
  /** @grpc/grpc-js status number. */
  readonly grpc: number
  /** `error.type` of vLLM's error object. */
  readonly type: string
  /** `error.code` of OpenAI's error object (`--error-style openai`). */
  readonly openai: string | null
}

const GRPC = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const

const entry = (http: number, grpc: keyof typeof GRPC, type: string, openai: string | null, message: string): ErrorEntry => ({
  message,
  http,
  grpc: GRPC[grpc],
  type,
  openai,
})

export const ERRORS = {
  // Configuration and start-up
  CONFIG_INVALID: entry(500, 'FAILED_PRECONDITION', 'InternalServerError', null, '{option}: {reason}'),
  BACKEND_UNAVAILABLE: entry(
    500,
    'FAILED_PRECONDITION',
    'InternalServerError',
    null,
    'backend {backend} cannot run here: {reason}',
  ),
  MODEL_INVALID: entry(500, 'FAILED_PRECONDITION', 'InternalServerError', null, 'model: {reason}'),
  MODEL_UNSUPPORTED: entry(
    500,
    'UNIMPLEMENTED',
    'InternalServerError',
    null,
    'model: {field} = {value} is not supported; {hint}',
  ),

  // Files
  SAFETENSORS_INVALID: entry(400, 'INVALID_ARGUMENT', 'BadRequestError', 'invalid_value', '{file}: {reason}'),

  TORCH_FILE_INVALID: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'invalid_value',
    '{file}: {reason}; save it as safetensors (safetensors.torch.save_file)',
  ),

  DELTA_IMPOSSIBLE: entry(400, 'FAILED_PRECONDITION', 'BadRequestError', null, 'no difference can be made: {reason}'),

  // Load harness
  TRACE_INVALID: entry(400, 'INVALID_ARGUMENT', 'BadRequestError', null, '{file}: line {line}: {column}: {reason}'),
  BENCH_FAILED: entry(500, 'UNAVAILABLE', 'InternalServerError', null, '{reason}'),

  // Requests
  BODY_INVALID: entry(400, 'INVALID_ARGUMENT', 'Bad Request', 'json_parse_error', '{reason}'),
  FIELD_INVALID: entry(400, 'INVALID_ARGUMENT', 'Bad Request', 'invalid_value', '{field}: {reason}'),
  FIELD_UNSUPPORTED: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'unsupported_value',
    '{field} is not supported by this server: {reason}',
  ),
  CONTEXT_LENGTH_EXCEEDED: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'context_length_exceeded',
    "This model's maximum context length is {maxModelLen} tokens. However, you requested {total} tokens ({promptTokens} in the prompt, {maxTokens} in the completion). Reduce the length of the prompt or of the completion.",
  ),
  ADAPTER_CONTEXT_LENGTH_EXCEEDED: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'context_length_exceeded',
    "This model's maximum context length is {maxModelLen} tokens. However, you requested {total} tokens ({promptTokens} in the prompt, {maxTokens} in the completion, {virtualTokens} virtual tokens of the adapter). Reduce the length of the prompt or of the completion.",
  ),
  ADAPTER_PROMPT_TOO_LONG: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'context_length_exceeded',
    'This adapter averages over the whole prompt, which must then fit one step: {promptTokens} tokens are over {maxTokens}. Send a shorter prompt or raise --max-num-batched-tokens.',
  ),
  TOKEN_OUT_OF_VOCABULARY: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'invalid_value',
    'Token id {tokenId} is out of vocabulary: this model has {vocabSize} tokens.',
  ),
  NO_TOKENIZER: entry(
    400,
    'FAILED_PRECONDITION',
    'BadRequestError',
    'invalid_value',
    'This model has no tokenizer files: send the prompt as token ids, and ask for return_token_ids.',
  ),
  NO_CHAT_TEMPLATE: entry(
    400,
    'FAILED_PRECONDITION',
    'BadRequestError',
    'invalid_value',
    'This model has no chat template: use /v1/completions, or start the server with --chat-template FILE.',
  ),
  MODEL_NOT_FOUND: entry(404, 'NOT_FOUND', 'NotFoundError', 'model_not_found', 'The model `{model}` does not exist.'),
  UNAUTHORIZED: entry(
    401,
    'UNAUTHENTICATED',
    'AuthenticationError',
    'invalid_api_key',
    'Incorrect API key provided. Send it as "Authorization: Bearer KEY".',
  ),
  ROUTE_NOT_FOUND: entry(
    404,
    'UNIMPLEMENTED',
    'Not Found',
    null,
    'There is no {method} {path}; /openapi.json lists the routes.',
  ),
  METHOD_NOT_ALLOWED: entry(405, 'UNIMPLEMENTED', 'Method Not Allowed', null, '{path} takes {allowed}, not {method}.'),
  BODY_TOO_LARGE: entry(
    413,
    'RESOURCE_EXHAUSTED',
    'Payload Too Large',
    null,
    'The body is over the limit of {limitBytes} bytes.',
  ),
  QUEUE_FULL: entry(
    429,
    'RESOURCE_EXHAUSTED',
    'RateLimitError',
    'rate_limit_exceeded',
    'The queue is full ({numWaiting} requests wait). Try again later.',
  ),
  ENGINE_STARTING: entry(503, 'UNAVAILABLE', 'ServiceUnavailableError', null, 'The server is starting. Try again in a moment.'),
  DRAINING: entry(
    503,
    'UNAVAILABLE',
    'ServiceUnavailableError',
    null,
    'The server is shutting down. Send the request elsewhere.',
  ),
  ENGINE_DEAD: entry(
    503,
    'UNAVAILABLE',
    'ServiceUnavailableError',
    null,
    'The engine has stopped: {reason}. It is being restarted.',
  ),
  REQUEST_TOO_LARGE: entry(
    400,
    'RESOURCE_EXHAUSTED',
    'BadRequestError',
    null,
    'The request needs {needBlocks} KV blocks and the cache has {haveBlocks}. Shorten it, or start the server with a larger --kv-cache-bytes.',
  ),

  // Adapters
  ADAPTER_NOT_FOUND: entry(
    404,
    'NOT_FOUND',
    'NotFoundError',
    'model_not_found',
    "Loading adapter '{name}' failed: no adapter found at {path}.",
  ),
  ADAPTER_NOT_LOADED: entry(404, 'NOT_FOUND', 'NotFoundError', 'model_not_found', "The lora adapter '{name}' cannot be found."),
  ADAPTER_FIELD_INVALID: entry(400, 'INVALID_ARGUMENT', 'InvalidUserInput', 'invalid_value', '{field}: {reason}'),
  ADAPTER_NAME_TAKEN: entry(
    400,
    'ALREADY_EXISTS',
    'InvalidUserInput',
    'invalid_value',
    "The lora adapter '{name}' has already been loaded. Send load_inplace: true to replace it.",
  ),
  ADAPTER_NAME_INVALID: entry(
    400,
    'INVALID_ARGUMENT',
    'InvalidUserInput',
    'invalid_value',
    "'{name}' cannot name an adapter: {reason}",
  ),
  ADAPTER_PATH_FORBIDDEN: entry(400, 'PERMISSION_DENIED', 'InvalidUserInput', 'invalid_value', 'lora_path: {reason}'),
  RUNTIME_LOADING_DISABLED: entry(
    400,
    'FAILED_PRECONDITION',
    'InvalidUserInput',
    null,
    'Adapters are not loaded or unloaded at run time: start the server with --allow-runtime-lora-updating.',
  ),
  LORA_NOT_SUPPORTED: entry(
    404,
    'NOT_FOUND',
    'NotFoundError',
    'model_not_found',
    'LoRA {name} is not supported, we currently support {names}.',
  ),
  ADAPTER_REFUSED: entry(
    400,
    'INVALID_ARGUMENT',
    'BadRequestError',
    'invalid_value',
    "Adapter '{name}' is refused: {field}: {reason}",
  ),
  ADAPTER_TOO_LARGE: entry(
    400,
    'RESOURCE_EXHAUSTED',
    'BadRequestError',
    'invalid_value',
    "Adapter '{name}' needs {needBytes} bytes and {budget} allows {haveBytes}.",
  ),

  // Native and internal faults
  BACKEND_FAILED: entry(500, 'INTERNAL', 'InternalServerError', 'server_error', 'backend {backend}: {detail}'),
  INTERNAL: entry(500, 'INTERNAL', 'InternalServerError', 'server_error', 'internal error: {detail}'),
} as const satisfies Record<string, ErrorEntry>

export type ErrorCode = keyof typeof ERRORS
export type ErrorParams = Readonly<Record<string, string | number>>

/** What crosses threads in place of an Error. */
export interface WireError {
  readonly code: ErrorCode
  readonly params: ErrorParams
  /** Request field at fault, dotted path. */
  readonly field: string | null
}

/** The only error class thrown on purpose. */
export class LorikeetError extends Error {
  override readonly name = 'LorikeetError'
  readonly code: ErrorCode
  readonly params: ErrorParams
  /** Request field at fault, dotted path; the `param` of the error body. */
  readonly field: string | null

  constructor(code: ErrorCode, params: ErrorParams = {}, options: { field?: string; cause?: unknown } = {}) {
    super(formatMessage(ERRORS[code].message, params), options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.params = params
    this.field = options.field ?? (code === 'FIELD_INVALID' || code === 'FIELD_UNSUPPORTED' ? String(params['field']) : null)
  }

  get httpStatus(): number {
    return ERRORS[this.code].http
  }

  get grpcStatus(): number {
    return ERRORS[this.code].grpc
  }

  toWire(): WireError {
    return { code: this.code, params: this.params, field: this.field }
  }

  static fromWire(wire: WireError): LorikeetError {
    return new LorikeetError(wire.code, wire.params, wire.field === null ? {} : { field: wire.field })
  }
}

/** Any thrown value as a coded error; what is not ours becomes `INTERNAL` with its own text. */
export function asLorikeetError(thrown: unknown): LorikeetError {
  if (thrown instanceof LorikeetError) return thrown
  const detail = thrown instanceof Error ? thrown.message : String(thrown)
  return new LorikeetError('INTERNAL', { detail }, { cause: thrown })
}

function formatMessage(template: string, params: ErrorParams): string {
  return template.replace(/\{(\w+)\}/g, (hole, name: string) => (name in params ? String(params[name]) : hole))
}
