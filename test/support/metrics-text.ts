// Reads Prometheus' text format strictly: what a scraper would refuse, this refuses.

import assert from 'node:assert/strict'

export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface ParsedFamily {
  readonly type: string
  readonly help: string
  readonly samples: Sample[]
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/y

export class MetricsText {
  readonly families = new Map<string, ParsedFamily>()

  constructor(text: string) {
    assert.ok(text.endsWith('\n'), 'the last line has an end')
    let current = ''
    for (const line of text.split('\n')) {
      if (line === '') continue
      const head = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
      if (head?.[1] === 'HELP') {
        current = head[2]!
        assert.ok(!this.families.has(current), `${current} comes twice`)
        this.families.set(current, { type: '', help: head[3]!, samples: [] })
      } else if (head?.[1] === 'TYPE') {
        assert.equal(head[2], current)
        this.families.set(current, { ...this.families.get(current)!, type: head[3]! })
      } else {
        const sample = parseSample(line)
        assert.ok(
          sample.name.replace(/_(bucket|sum|count)$/, '') === current || sample.name === current,
          `${line} in ${current}`,
        )
        this.families.get(current)!.samples.push(sample)
      }
    }
  }

  /** Value of the one sample with these labels among others. */
  value(name: string, labels: Readonly<Record<string, string>> = {}): number {
    const found = this.samples(name, labels)
    assert.equal(found.length, 1, `${found.length} samples of ${name} ${JSON.stringify(labels)}`)
    return found[0]!.value
  }

  samples(name: string, labels: Readonly<Record<string, string>> = {}): Sample[] {
    const family = this.families.get(name) ?? this.families.get(name.replace(/_(bucket|sum|count)$/, ''))
    assert.ok(family, `no family ${name}`)
    return family.samples.filter(
      (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    )
  }

  /** Values of one label, sorted. */
  labelValues(name: string, label: string): string[] {
    return [...new Set(this.samples(name).map((sample) => sample.labels[label] ?? ''))].sort()
  }
}

function parseSample(line: string): Sample {
  const [, name, labelText = '', value] = SAMPLE.exec(line) ?? assert.fail(`not a sample: ${line}`)
  const labels: Record<string, string> = {}
  LABEL.lastIndex = 0
  while (LABEL.lastIndex < labelText.length) {
    const [, key, raw] = LABEL.exec(labelText) ?? assert.fail(`bad labels: ${line}`)
    assert.ok(!(key! in labels), `label ${key} twice: ${line}`)
    labels[key!] = raw!.replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char))
  }
  const number = value === '+Inf' ? Number.POSITIVE_INFINITY : Number(value)
  // Go's parser takes any case; prom-client writes `Nan`.
  assert.ok(!Number.isNaN(number) || /^nan$/i.test(value!), `not a number: ${line}`)
  return { name: name!, labels, value: number }
}
