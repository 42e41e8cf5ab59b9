import { invariant } from '../core/invariant.ts'
import { compareRequests, type EngineRequest } from './request.ts'

/** Requests in the order of `compareRequests`, with the number of them by adapter name. */
export class RequestQueue {
  readonly #requests: EngineRequest[] = []
  readonly #numByAdapter = new Map<string, number>()

  get length(): number {
    return this.#requests.length
  }

  /** Number of requests by adapter with at least one here; '' never among them. */
  get numByAdapter(): ReadonlyMap<string, number> {
    return this.#numByAdapter
  }

  at(index: number): EngineRequest {
    const request = this.#requests[index]
    invariant(request !== undefined, `request ${index} of ${this.#requests.length}`)
    return request
  }

  add(request: EngineRequest): void {
    this.#requests.splice(this.#lowerBound(request), 0, request)
    const { name } = request.adapter
    if (name !== '') this.#numByAdapter.set(name, (this.#numByAdapter.get(name) ?? 0) + 1)
  }

  removeAt(index: number): EngineRequest {
    const request = this.at(index)
    this.#requests.splice(index, 1)
    const { name } = request.adapter
    if (name === '') return request
    const left = (this.#numByAdapter.get(name) ?? 0) - 1
    if (left > 0) this.#numByAdapter.set(name, left)
    else this.#numByAdapter.delete(name)
    return request
  }

  remove(request: EngineRequest): void {
    const index = this.#lowerBound(request)
    invariant(this.#requests[index] === request, `request ${request.requestId} is not in the queue`)
    this.removeAt(index)
  }

  [Symbol.iterator](): Iterator<EngineRequest> {
    return this.#requests[Symbol.iterator]()
  }

  checkIntegrity(): void {
    for (let i = 1; i < this.#requests.length; i++) {
      invariant(compareRequests(this.at(i - 1), this.at(i)) < 0, `queue out of order at ${i}`)
    }
    const named = this.#requests.filter((request) => request.adapter.name !== '').length
    const counted = [...this.#numByAdapter.values()].reduce((sum, n) => sum + n, 0)
    invariant(named === counted, `${named} requests with an adapter, ${counted} counted`)
  }

  /** First index whose request does not come before `request`. */
  #lowerBound(request: EngineRequest): number {
    let low = 0
    let high = this.#requests.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (compareRequests(this.at(middle), request) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
