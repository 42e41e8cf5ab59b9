// A minimal GPT-2 style tokenizer.json: the 256 bytes, a few merges, one special token.

/** Ids 0 to 255 are the bytes in the order of the GPT-2 alphabet; then `he`, `ll`, `hell`, `Ġt`; the last is `<|end|>`. */
export function byteLevelTokenizerJson(): Record<string, unknown> {
  const vocab: Record<string, number> = {}
  let numShifted = 0
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    vocab[String.fromCodePoint(isPrintable ? byte : 256 + numShifted++)] = byte
  }
  const merges = ['h e', 'l l', 'he ll', 'Ġ t']
  for (const merge of merges) vocab[merge.replace(' ', '')] = Object.keys(vocab).length
  const end = Object.keys(vocab).length
  return {
    version: '1.0',
    added_tokens: [
      { id: end, content: '<|end|>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    ],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', dropout: null, unk_token: null, vocab, merges, byte_fallback: false, fuse_unk: false },
  }
}
