// The numerics behind the folds: random permutations as PyTorch draws them, transforms, eigenvectors, inverses.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { inverseTransform } from '../../src/adapter/formats/peft/inverse-dft.ts'
import { inverse } from '../../src/adapter/formats/peft/matrix-inverse.ts'
import { product, productTransposed } from '../../src/adapter/formats/peft/matrix-product.ts'
import { firstOfPermutation } from '../../src/adapter/formats/peft/random-places.ts'
import { symmetricEigen } from '../../src/adapter/formats/peft/symmetric-eigen.ts'
import { tailOf } from '../../src/adapter/formats/peft/weight-tail.ts'
import { createRandom, randomArray } from '../support/random-adapter.ts'

const TOLERANCE = 1e-12

describe('numerics of the folds', () => {
  it('a permutation starts as that of torch.randperm', () => {
    assert.deepEqual([...firstOfPermutation(777, 8, 8)], [7, 0, 3, 6, 1, 4, 5, 2])
    assert.deepEqual([...firstOfPermutation(777, 4096, 6)], [2151, 945, 3161, 4091, 1983, 1566])
    assert.deepEqual([...firstOfPermutation(777, 1024 * 4096, 3)], [1374311, 4046277, 2572455])
    assert.deepEqual([...firstOfPermutation(777, 4096 ** 2, 3)], [1374311, 8240085, 6766295])
  })

  it('the inverse Fourier transform is its definition, for powers of two and other lengths', () => {
    for (const length of [1, 2, 8, 12, 60, 43]) {
      const random = createRandom(length)
      const [re, im] = [Float64Array.from(randomArray(random, length, 1)), Float64Array.from(randomArray(random, length, 1))]
      const found = { re: re.slice(), im: im.slice() }
      inverseTransform(length)(found)
      for (let k = 0; k < length; k++) {
        let [sumRe, sumIm] = [0, 0]
        for (let j = 0; j < length; j++) {
          const angle = (2 * Math.PI * ((j * k) % length)) / length
          sumRe += re[j]! * Math.cos(angle) - im[j]! * Math.sin(angle)
          sumIm += re[j]! * Math.sin(angle) + im[j]! * Math.cos(angle)
        }
        assert.ok(Math.hypot(found.re[k]! - sumRe, found.im[k]! - sumIm) < TOLERANCE * length, `length ${length}, value ${k}`)
      }
    }
  })

  it('eigenvectors are orthonormal, ascending, and turn the matrix into its eigenvalues', () => {
    for (const n of [1, 2, 3, 20]) {
      const half = Float64Array.from(randomArray(createRandom(n), n * n, 1))
      // Rank deficient from n = 3 on.
      if (n > 2) half.fill(0, n, 2 * n)
      const matrix = productTransposed(half, half, n)
      const eigen = symmetricEigen(matrix.slice(), n)
      assert.ok(eigen !== null)
      const image = product(eigen.vectors, matrix, n)
      const overlap = productTransposed(eigen.vectors, eigen.vectors, n)
      for (let k = 0; k < n; k++) {
        if (k > 0) assert.ok(eigen.values[k]! >= eigen.values[k - 1]!)
        for (let i = 0; i < n; i++) {
          assert.ok(Math.abs(image[k * n + i]! - eigen.values[k]! * eigen.vectors[k * n + i]!) < TOLERANCE)
          assert.ok(Math.abs(overlap[k * n + i]! - (i === k ? 1 : 0)) < TOLERANCE)
        }
      }
    }
  })

  it('the tail of a weight is what its smallest singular values make up, and nothing where they are not apart', () => {
    // Singular values 3, 2, 1 along the axes, on either side.
    const tall = Float32Array.from([0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1])
    const wide = Float32Array.from([0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1])
    for (const [weight, outFeatures, inFeatures] of [
      [tall, 4, 3],
      [wide, 3, 4],
    ] as const) {
      const tail = tailOf(weight, { outFeatures, inFeatures }, 2)
      assert.ok(tail !== null)
      const made = product(tail.b, tail.a, 2)
      const expected = weight.map((value) => (value === 3 ? 0 : value))
      for (const [i, value] of expected.entries()) assert.ok(Math.abs(made[i]! - value) < 1e-7)
    }
    const flat = Float32Array.from([1, 0, 0, 0, 1, 0, 0, 0, 5])
    assert.equal(tailOf(flat, { outFeatures: 3, inFeatures: 3 }, 1), null)
    assert.ok(tailOf(flat, { outFeatures: 3, inFeatures: 3 }, 2) !== null)
  })

  it('an inverse undoes its matrix, pivots included; a singular one has none', () => {
    const matrix = Float64Array.from([0, 2, 1, 1, 0, 0, 3, 0, 1])
    const undone = product(inverse(matrix, 3) ?? new Float64Array(), matrix, 3)
    for (const [i, value] of undone.entries()) assert.ok(Math.abs(value - (i % 4 === 0 ? 1 : 0)) < TOLERANCE)
    assert.equal(inverse(Float64Array.from([1, 2, 2, 4]), 2), null)
  })
})
