import { SECTIONS } from '../config/option.ts'
import { OPTION_NAMES, OPTIONS, type OptionName } from '../config/options.ts'

// Terminals are 80 columns wide when nothing else is known.
const WIDTH_COLUMNS = 80
const INDENT = 6

export const HELP = `Lorikeet serves one language model and any number of adapters of it; every request names its own.

Usage
  lorikeet serve --model DIR [options]   start the server
  lorikeet bench [options]               load a running server and measure it
  lorikeet trace stats|convert|generate  look at, convert and generate request traces
  lorikeet inspect DIR --model DIR       what an adapter would be served as, or why it is refused
  lorikeet delta --base --tuned --out    an adapter from the difference of two checkpoints
  lorikeet doctor [DIR] [--json]         what this machine can run, and why not
  lorikeet help serve                    every option of serve
  lorikeet version

Try it
  lorikeet serve --model demo/model --adapter-dir demo/adapters
  lorikeet serve --model DIR --adapter pirate=adapters/pirate --adapter sql=adapters/sql --port 8001
  curl http://localhost:8000/v1/completions -H 'content-type: application/json' \\
    -d '{"model": "pirate", "prompt": "Once upon a time", "max_tokens": 48, "temperature": 0}'

The base model answers to the --model text or --served-model-name, an adapter to its name.
`

const INSPECT_HELP = `lorikeet inspect ADAPTER_DIR --model DIR [--json]

Says what an adapter would be served as on this model: its sites and primitives, ranks, bytes, what it
costs a token, and whether its requests share the base model's prefix cache; or why it is refused.
`

const DELTA_HELP = `lorikeet delta --base DIR --tuned DIR --out DIR [--top-k-percent P] [--kind NAME]

Writes the difference of a tuned checkpoint to its base as an adapter: lorikeet_delta.json and
delta.safetensors (docs/adapter-format.md). Each parameter is stored as single entries, whole rows or
in full, whichever is smallest; equal ones are left out.

  --top-k-percent P
      Of the weights of linears and heads keep the P percent that differ most (LT-SFT, diff pruning).
      Default: every difference.
  --kind NAME
      What listings call it. Default: delta.
`

const SERVE_INTRO = `lorikeet serve --model DIR [options]

Loads the model, then the adapters, and answers on http://HOST:PORT/v1 as OpenAI and vLLM do.
SIGTERM or SIGINT drains: new requests get 503, running ones finish; a second signal ends at once.

Each option is also a variable (--max-num-seqs is LORIKEET_MAX_NUM_SEQS; commas separate the entries
of a list) and a key of the JSON file of --config. Flags win over variables, both over the file.
`

/** Of a command, else of the program. */
export function helpOf(topic: string | undefined): string {
  switch (topic) {
    case 'serve':
      return serveHelp()
    case 'inspect':
      return INSPECT_HELP
    case 'delta':
      return DELTA_HELP
    default:
      return HELP
  }
}

export function serveHelp(): string {
  const sections = SECTIONS.map((section) => {
    const names = OPTION_NAMES.filter((name) => OPTIONS[name].section === section)
    return `${section}\n${names.map(optionHelp).join('')}`
  })
  return [SERVE_INTRO, ...sections].join('\n')
}

function optionHelp(name: OptionName): string {
  const { aliases, description, shownDefault, vllmEnv } = OPTIONS[name]
  const also = aliases.length === 0 ? '' : `   (also ${aliases.map((alias) => `--${alias}`).join(', ')})`
  const remarks = [
    shownDefault === null ? '' : `Default: ${shownDefault}.`,
    vllmEnv.length === 0 ? '' : `Reads ${vllmEnv.join(', ')} too.`,
  ]
  const text = [description, ...remarks].filter(Boolean).join(' ')
  return `  ${usage(name)}${also}\n${wrap(text)}`
}

/** `--port N`, `--[no-]guard-metrics`, `--adapter NAME=DIR ...` */
export function usage(name: OptionName): string {
  const { isList, isSwitch, placeholder } = OPTIONS[name].kind
  if (isSwitch) return `--[no-]${name}`
  return `--${name} ${placeholder}${isList ? ' ...' : ''}`
}

function wrap(text: string): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && INDENT + line.length + 1 + word.length > WIDTH_COLUMNS) {
      lines.push(line)
      line = ''
    }
    line += line === '' ? word : ` ${word}`
  }
  return [...lines, line].map((one) => `${' '.repeat(INDENT)}${one}\n`).join('')
}
