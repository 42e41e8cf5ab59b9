// Known ways in which servers get adapters silently wrong, each with the tests that would fail here: golden adapters by name, other tests by
// file and words of their title. A trap without a test says why there is none.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'

type Trap = readonly [number: number, what: string, cover: readonly string[] | string]

const COMPILE = 'unit/adapter-compile.test.ts'
const TYPES = 'unit/adapter-peft-types.test.ts'
const REFUSALS = 'unit/adapter-refusals.test.ts'
const KINDS = 'unit/adapter-kinds.test.ts'
const VIRTUAL = 'unit/virtual-tokens.test.ts'
const COMPLETE = 'unit/adapter-completeness.test.ts#completeness'

const TRAPS: readonly Trap[] = [
  [1, 'a missing alpha is a default', [`${REFUSALS}#no alpha`]],
  [2, 'patterns of ranks and alphas ignored', ['llama/lora_rankpattern', `${COMPILE}#the first pattern in file order`]],
  [3, 'pattern keys that never match, matched', [`${COMPILE}#the first pattern in file order`]],
  [4, 'one lookup for both patterns in old files', [`${COMPILE}#warns where an old file may have meant another alpha`]],
  [5, 'dots of pattern keys', [`${COMPILE}#the first pattern in file order`]],
  [6, 'rsLoRA with the global rank', [`${COMPILE}#rsLoRA takes the root of the rank of the pattern`]],
  [7, 'a padded rank in the scale', ['backend/onnx-tiles.test.ts#ranks 2, 16 and 40']],
  [8, 'AdaLoRA scaled by the surviving rank', ['llama/adalora_pruned', `${KINDS}#ADALORA divides by the rank before pruning`]],
  [9, 'AdapterHub files before 1.1 scaled', ['unit/adapter-old-files.test.ts#AdapterHub before 1.1']],
  [10, 'LoKr and LoHa with whole factors scaled otherwise', ['llama/lokr_full']],
  [11, 'VeRA with an alpha', ['llama/vera']],
  [12, 'files of other ecosystems without alpha', [`${REFUSALS}#no alpha`]],
  [13, 'tensors under another prefix dropped', [COMPLETE, `${REFUSALS}#a prefix of another writer`]],
  [14, 'names of a multimodal wrapper', [`${COMPILE}#accepts the names of a multimodal wrapper`]],
  [15, 'forms of target_modules', [`${COMPILE}#lists, patterns, all-linear, exclusions and layers`]],
  [16, 'targets without a dot boundary', [`${COMPILE}#lists, patterns, all-linear, exclusions and layers`]],
  [17, 'feedforward_modules of IA3', [`${TYPES}#{ feedforward_modules: ['k_proj', 'down_proj'] }`]],
  [18, 'IA3 vectors of square layers', ['phi3/ia3_fused', `${KINDS}#IA3 splits a fused vector`]],
  [19, 'fragments of adapter names in keys of PEFT 0.4', 'refused: an unknown tensor refuses the file'],
  [20, 'the magnitude with .weight', [`${COMPILE}#takes the magnitude with or without .weight`]],
  [21, 'tensors without .weight', ['llama/adalora', 'llama/lora_embed']],
  [
    22,
    'base_layer is a parameter of the base',
    ['llama/lora_embed', `${COMPILE}#a stored embedding equal to the base is dropped`],
  ],
  [23, 'rows of tokens are no difference', ['llama/lora_trainable_tokens', `${COMPILE}#replaces rows of the embedding`]],
  [24, 'modules_to_save under their own name', ['llama/lora_modules_to_save', `${REFUSALS}#another task`]],
  [25, 'parts of an adapter that are not served, left out', [COMPLETE]],
  [26, 'a fused base under split keys', ['phi3/lora_all']],
  [27, 'an adapter of a fused module', [`${COMPILE}#one A of a fused module serves its three sites`]],
  [28, 'weights of Conv1D', ['gpt2/lora_gpt2_conv1d', `${COMPILE}#GPT-2 linears trained whole are stored`]],
  [29, 'fused experts', [`${REFUSALS}#fused parameters`]],
  [30, 'widths of VB-LoRA indices', ['llama/vblora_topkonly', `${TYPES}#VBLORA indices outside the bank`]],
  [31, 'SHiRA indices as floats', ['unit/adapter-old-files.test.ts#SHIRA indices may be stored as floating point']],
  [32, 'RandLoRA projections stored twice', ['llama/randlora', COMPLETE]],
  [33, 'generations of OFT', ['llama/oft', 'llama/oft_013', 'llama/oft_015']],
  [34, 'BONE', ['llama/bone', 'llama/bone_bat', `${KINDS}#BONE is MISS under its old name`]],
  [35, 'layers of the X-LoRA classifier', 'X-LoRA is refused by name'],
  [36, 'a head leaks into a tied embedding', [`${COMPILE}#a trained embedding does not leak into the head`]],
  [37, 'two matrices of a tied model', [`${COMPILE}#two different saved matrices are both used`]],
  [38, 'rows of tokens on a tied model', [`${COMPILE}#rows of tokens apply to both sides`]],
  [
    39,
    'embeddings that are multiplied',
    ['backend/reference-primitives.test.ts#is multiplied by the embedding scale', 'gemma2/lora_all'],
  ],
  [40, 'a larger vocabulary', [`${REFUSALS}#an adapter of a larger vocabulary says so`]],
  [41, 'a head computed for prompt tokens', 'a matter of cost, shown by the benches'],
  [42, 'positions behind a prefix', ['llama/prefix_tuning', 'adapterhub/prefix_tuning']],
  [
    43,
    'the context limit and virtual tokens',
    [`${VIRTUAL}#stop at the context limit`, 'unit/http-virtual-tokens.test.ts#prompt and completion share the context'],
  ],
  [44, 'prefixes as wide as the queries', ['unit/adapter-prompt-learning.test.ts#are refused where they do not fit the model']],
  [45, 'head sizes other than hidden over heads', ['gemma2/prefix_tuning', 'qwen3/prefix_tuning']],
  [46, 'padding before virtual tokens', 'nothing is padded here'],
  [
    47,
    'log-probabilities of virtual tokens',
    [`${VIRTUAL}#counts and sees nothing of the virtual tokens`, `${VIRTUAL}#scores a prompt in chunks as whole`],
  ],
  [48, 'a projected prefix has no projection in its file', ['llama/prefix_tuning_proj']],
  [
    49,
    'pages shared between adapters',
    [
      'unit/adapter-digest.test.ts#kvDigest is empty exactly where',
      `${VIRTUAL}#shares prompts behind it with requests of the same salt alone`,
    ],
  ],
  [
    50,
    'soft prompts and positions in chunks',
    [`${VIRTUAL}#get the same tokens whole, in chunks`, 'unit/adapter-writers-oracle.test.ts#of DePT'],
  ],
  [51, 'templates of the original P-tuning', 'HF files have none, and nothing else is read'],
  [
    52,
    'the softmax of adaption prompts',
    ['llama/adaption_prompt', 'backend/primitive-formulas.test.ts#side attention: a softmax of its own'],
  ],
  [53, 'prompts of SMoP mixed over a batch', 'SMoP is refused by name'],
  [54, 'encoders run again', ['llama/cpt', 'llama/p_tuning_lstm', 'llama/p_tuning_mlp']],
  [
    55,
    'a base that an adapter changed',
    ['unit/adapter-completeness.test.ts#leave the base bit-identical', `${REFUSALS}#an unconverted base change`],
  ],
  [56, 'an adapter of another base', [`${REFUSALS}#an adapter of another base names the tensor and both shapes`]],
  [57, 'folds of another base kept', 'adapters are compiled for the model of the process, which never changes'],
  [58, 'merged and unmerged sums', ['llama/lora_all']],
  [59, 'replicated layers', [`${REFUSALS}#an option known to be missing`]],
  [60, 'token ids of another tokenizer', [`${REFUSALS}#an invocation out of vocabulary`]],
  [61, 'the last invocation', ['llama/alora', 'unit/engine.test.ts#runs an activated adapter from the last invocation on']],
  [
    62,
    'activation before its start',
    ['support/contract.ts#an adapter that starts inside a sequence leaves what comes before it alone'],
  ],
  [
    63,
    'edits of the first and last prompt tokens',
    ['adapterhub/loreft', 'unit/adapter-writers.test.ts#edits at most half of a short prompt'],
  ],
  [64, 'gates over the tokens of a call', ['adapterhub/lora_gated', 'adapterhub/unipelt']],
  [65, 'a router over the batch', 'LILY is refused by name'],
  [
    66,
    'what top-k leaves out',
    ['backend/primitive-formulas.test.ts#gates of mixtures', 'oracle MoLORA, the two best', 'oracle MoV, the two best'],
  ],
  [67, 'MixLoRA mixed linear by linear', 'MixLoRA is refused by name'],
  [68, 'hidden states of the base pass', 'X-LoRA is refused by name'],
  [69, 'sampling at inference', [`${TYPES}#{ sample_at_inference: true }`]],
  [70, 'weighted sums by factors', ['unit/adapter-mixtures.test.ts#keeps low-rank updates side by side', 'oracle LoRAHub']],
  [71, 'pickles that run code', ['unit/torch-file.test.ts#run nothing']],
  [72, 'bfloat16 storages', ['unit/torch-file.test.ts#give every tensor, views of shared data included']],
  [73, 'views of one storage', ['unit/torch-file.test.ts#give every tensor, views of shared data included']],
  [74, 'safetensors beside a pickle', [`${REFUSALS}#safetensors wins over a pickle beside it`]],
  [75, 'sharded adapters', [`${REFUSALS}#sharded weights are refused`]],
  [76, 'numbers as floats and null', [`${REFUSALS}#no value of any config key is more than a refusal`]],
  [77, 'a rank of 0', [`${REFUSALS}#rank 0`]],
  [78, 'empty files', [`${REFUSALS}#no tensor at all`]],
  [79, 'values that are no numbers, B of zeros', [`${REFUSALS}#a NaN`, `${COMPILE}#says when B was never trained`]],
]

describe('traps', () => {
  it('have each a test or a reason', () => {
    assert.deepEqual(
      TRAPS.map(([number]) => number),
      Array.from({ length: TRAPS.length }, (_, i) => i + 1),
    )
  })

  for (const [number, what, cover] of TRAPS) {
    if (typeof cover === 'string') continue
    it(`${number}: ${what}`, () => {
      for (const test of cover) assert.ok(doesExist(test), test)
    })
  }
})

function doesExist(test: string): boolean {
  const root = join(import.meta.dirname, '..')
  if (test.startsWith('oracle '))
    return readFileSync(join(root, '../scripts/peft-survey.json'), 'utf8').includes(test.replace(' ', ':'))
  const [file = '', title] = test.split(/#(.*)/s)
  if (title !== undefined) return readFileSync(join(root, file), 'utf8').includes(title)
  return existsSync(join(root, 'fixtures/adapters', test)) || existsSync(join(root, 'fixtures', test))
}
