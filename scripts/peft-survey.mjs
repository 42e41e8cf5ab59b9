// The tables of docs/peft.md from scripts/peft-survey.json; scripts/docs.mjs writes them and a test compares them.

import { readFileSync } from 'node:fs'

export const SURVEY = JSON.parse(readFileSync(new URL('peft-survey.json', import.meta.url), 'utf8'))

/** One row a method of the survey. */
export function methodTable() {
  return table(
    ['#', 'method', 'paper', 'what it computes', 'served', 'primitives', 'loads from', 'test'],
    SURVEY.methods.map(({ number, name, paper, computes, state, how, primitives, formats, isOurReading, tests }) => [
      String(number),
      isOurReading ? `${name} △` : name,
      paper,
      computes,
      how === '' ? stateName(state) : `${stateName(state)}: ${how}`,
      primitives.join(', '),
      formats.join(', '),
      tests.map(testName).join(', '),
    ]),
  )
}

/** One row a `peft_type`; `refused` gives the reasons of those not served. */
export function peftTypeTable(refused) {
  return table(
    ['`peft_type`', 'what it computes', 'served as', 'test'],
    SURVEY.peftTypes.map(({ name, computes, primitives, tests }) => [
      `\`${name}\``,
      computes,
      refused[name] === undefined ? primitives.join(', ') : `no: ${refused[name]}`,
      tests.map(testName).join(', '),
    ]),
  )
}

/** One row an architecture or composition of AdapterHub. */
export function adapterHubTable() {
  return table(
    ['architecture', 'what it computes', 'served as', 'test'],
    SURVEY.adapterHub.map(({ name, computes, primitives, tests }) => [
      `\`${name}\``,
      computes,
      primitives.join(', '),
      tests.map(testName).join(', '),
    ]),
  )
}

/** One row a writer of checkpoints that is neither of the two libraries. */
export function writerTable() {
  return table(
    ['writer', 'files', 'served as', 'test'],
    SURVEY.writers.map(({ name, files, primitives, tests }) => [
      name,
      files,
      primitives.join(', '),
      tests.map(testName).join(', '),
    ]),
  )
}

function stateName(state) {
  return { served: 'yes', partly: 'in part', 'not served': 'no' }[state]
}

/** A title may hold a variable of its test. */
const TITLE_VARIABLE = /\$\{(\w+)\}/g

/** `peft:` and `hub:` name golden adapters, `oracle:` a float64 program, anything else a test by file and words of its title. */
function testName(test) {
  if (/^(peft|hub|oracle):/.test(test)) return test
  const [file, title] = test.split('#')
  return `${file.split('/').at(-1)}: ${title.replaceAll(TITLE_VARIABLE, 'each $1')}`
}

function table(head, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}
