// The tables of docs/ that restate code; scripts/docs.mjs writes them and a test compares them.

import { SECTIONS } from '../config/option.ts'
import { envName, OPTION_NAMES, OPTIONS, type OptionName } from '../config/options.ts'
import { ERRORS } from '../errors.ts'
import { usage } from './help.ts'

/** The tables of docs/configuration.md, one a section. */
export function optionTables(): string {
  return SECTIONS.map((section) => {
    const rows = OPTION_NAMES.filter((name) => OPTIONS[name].section === section).map(optionRow)
    return [`## ${section}`, '', '| flag | variable | default | meaning |', '| --- | --- | --- | --- |', ...rows, ''].join('\n')
  }).join('\n')
}

function optionRow(name: OptionName): string {
  const { aliases, description, shownDefault, vllmEnv } = OPTIONS[name]
  const flags = [usage(name), ...aliases.map((alias) => `--${alias}`)].map((flag) => `\`${flag}\``)
  const variables = [envName(name), ...vllmEnv].map((variable) => `\`${variable}\``)
  return row([flags.join(', '), variables.join(', '), shownDefault ?? '', description])
}

/** The table of docs/errors.md: every code of src/errors.ts. */
export function errorTable(): string {
  const rows = Object.entries(ERRORS).map(([code, { http, grpc, type, openai, message }]) =>
    row([`\`${code}\``, String(http), String(grpc), type, openai ?? '', message]),
  )
  return [row(['code', 'HTTP', 'gRPC', 'type', 'OpenAI code', 'message']), row(Array<string>(6).fill('---')), ...rows, ''].join(
    '\n',
  )
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

const START = (name: string) => `<!-- ${name}: written by npm run docs -->`
const END = (name: string) => `<!-- end of ${name} -->`

/** `page` with the text between its two markers replaced; null when it has no such markers. */
export function replaceGenerated(page: string, name: string, text: string): string | null {
  const start = page.indexOf(START(name))
  const end = page.indexOf(END(name))
  if (start < 0 || end < start) return null
  return `${page.slice(0, start)}${START(name)}\n\n${text.trim()}\n\n${page.slice(end)}`
}

/** Page, name of the generated part, its text. */
export const GENERATED_PARTS = [
  ['docs/configuration.md', 'options', optionTables],
  ['docs/errors.md', 'errors', errorTable],
] as const
