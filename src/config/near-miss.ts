/** The candidate a mistyped word most likely meant, or null when none is close. Optimal string alignment: one swap is one edit. */
export function nearMiss(word: string, candidates: readonly string[]): string | null {
  let best: string | null = null
  // A third of the word may be wrong: --max-seqs still finds --max-num-seqs by the containment rule below, random words find nothing.
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best ?? candidates.find((candidate) => hasSameParts(word, candidate)) ?? null
}

function hasSameParts(word: string, candidate: string): boolean {
  const parts = candidate.split('-')
  const wanted = word.split('-')
  return wanted.length > 1 && wanted.every((part) => parts.includes(part))
}

function editDistance(a: string, b: string): number {
  let before: number[] = []
  let above = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (above[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let cost = Math.min(substitution, (above[j] as number) + 1, (row[j - 1] as number) + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (before[j - 2] as number) + 1)
      }
      row.push(cost)
    }
    before = above
    above = row
  }
  return above[b.length] as number
}
