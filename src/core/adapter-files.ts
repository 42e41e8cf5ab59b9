/**
 * A directory with one of these files may hold an adapter; adapter/formats says which and of what format. `config.json` is also a
 * model's: such a directory is read, and found to be no adapter.
 */
export const ADAPTER_FILES: readonly string[] = [
  'adapter_config.json', // HF PEFT, AdapterHub
  'adapter_setup.json', // AdapterHub, compositions
  'config.json', // OpenDelta, pyreft
  'lorikeet_adapter.json',
  'lorikeet_delta.json',
  'lorikeet_mixture.json',
  'pytorch_diff.bin', // composable-sft
]
