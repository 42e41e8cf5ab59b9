// Branded ids: a number or string that cannot be passed where another kind of id is meant.

declare const brand: unique symbol
type Brand<T, Name extends string> = T & { readonly [brand]: Name }

/** One sampled sequence inside the engine. A client call with `n` choices is `n` requests. */
export type RequestId = Brand<string, 'RequestId'>
/** Index of a KV block in the backend's pool. */
export type BlockId = Brand<number, 'BlockId'>
/** One immutable generation of one adapter; never reused while the process lives. */
export type AdapterId = Brand<number, 'AdapterId'>
/** Index of an adapter's weights on the device; reused after `unloadAdapter`. */
export type AdapterSlot = Brand<number, 'AdapterSlot'>

export const requestId = (value: string): RequestId => value as RequestId
export const blockId = (value: number): BlockId => value as BlockId
export const adapterId = (value: number): AdapterId => value as AdapterId
export const adapterSlot = (value: number): AdapterSlot => value as AdapterSlot

/** `adapterSlotOfToken` of a token that runs the base model alone. */
export const NO_ADAPTER_SLOT = -1
