// Partial selection over unsorted numbers: thresholds in expected linear time, best-k by a small heap. No full sorts.

/** The k-th largest of `values[0, n)`, 1 <= k <= n. Reorders `values`. Hoare's quickselect with median-of-three pivots. */
export function kthLargest(values: Float32Array, n: number, k: number): number {
  let low = 0
  let high = n - 1
  while (low < high) {
    const pivot = medianOfThree(values, low, high)
    let i = low
    let j = high
    while (i <= j) {
      while ((values[i] as number) > pivot) i++
      while ((values[j] as number) < pivot) j--
      if (i <= j) swap(values, i++, j--)
    }
    // values[low..j] >= pivot, values[i..high] <= pivot, and what lies between equals it.
    if (k - 1 <= j) high = j
    else if (k - 1 >= i) low = i
    else return pivot
  }
  return values[k - 1] as number
}

/**
 * The smallest t such that the members of `weights[0, n)` above t sum to less than `mass`: the nucleus holds everything above t
 * and as many of those equal to t as it takes. Reorders `weights`. Weighted quickselect.
 */
export function nucleusThreshold(weights: Float32Array, n: number, mass: number): number {
  let low = 0
  let high = n - 1
  let massAbove = 0
  while (low < high) {
    const pivot = medianOfThree(weights, low, high)
    let i = low
    let j = high
    while (i <= j) {
      while ((weights[i] as number) > pivot) i++
      while ((weights[j] as number) < pivot) j--
      if (i <= j) swap(weights, i++, j--)
    }
    let upper = 0
    for (let x = low; x <= j; x++) upper += weights[x] as number
    if (massAbove + upper >= mass) {
      high = j
    } else {
      massAbove += upper
      for (let x = j + 1; x < i; x++) massAbove += weights[x] as number
      if (massAbove >= mass) return pivot
      // Rounding may leave the total below `mass`: then the smallest weight is the threshold.
      if (i > high) return pivot
      low = i
    }
  }
  return weights[low] as number
}

/**
 * Indices of the k largest of `values[0, n)`, best first, ties by lowest index. A heap of k with its worst on top:
 * most values lose one comparison with it and are done.
 */
export function topIndices(values: Float32Array, n: number, k: number): Int32Array {
  const size = Math.min(k, n)
  if (size === 0) return new Int32Array(0)
  const heap = new Int32Array(size)
  for (let i = 0; i < size; i++) heap[i] = i
  for (let i = (size >> 1) - 1; i >= 0; i--) siftDown(values, heap, i, size)
  let worst = values[heap[0] as number] as number
  for (let i = size; i < n; i++) {
    // An equal value has the higher index, so it loses.
    if (!((values[i] as number) > worst)) continue
    heap[0] = i
    siftDown(values, heap, 0, size)
    worst = values[heap[0] as number] as number
  }
  for (let end = size - 1; end > 0; end--) {
    const top = heap[0] as number
    heap[0] = heap[end] as number
    heap[end] = top
    siftDown(values, heap, 0, end)
  }
  return heap
}

function isWorse(values: Float32Array, a: number, b: number): boolean {
  const difference = (values[a] as number) - (values[b] as number)
  return difference < 0 || (!(difference > 0) && a > b)
}

function siftDown(values: Float32Array, heap: Int32Array, start: number, size: number): void {
  let parent = start
  const item = heap[parent] as number
  for (let child = 2 * parent + 1; child < size; child = 2 * parent + 1) {
    if (child + 1 < size && isWorse(values, heap[child + 1] as number, heap[child] as number)) child++
    if (!isWorse(values, heap[child] as number, item)) break
    heap[parent] = heap[child] as number
    parent = child
  }
  heap[parent] = item
}

function medianOfThree(values: Float32Array, low: number, high: number): number {
  const a = values[low] as number
  const b = values[(low + high) >>> 1] as number
  const c = values[high] as number
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c))
}

function swap(values: Float32Array, i: number, j: number): void {
  const value = values[i] as number
  values[i] = values[j] as number
  values[j] = value
}
