// Upper bounds of histograms. Those of `vllm:` families are vLLM's, so that dashboards can add servers up by `le`.

export const TTFT_BOUNDS_S = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
] as const

export const TOKEN_GAP_BOUNDS_S = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
] as const

export const LATENCY_BOUNDS_S = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
] as const

export const SAMPLE_COUNT_BOUNDS = [1, 2, 5, 10, 20] as const

export const STEP_TOKEN_BOUNDS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384] as const

/** Steps of small models on a CPU take a millisecond, of large ones on a GPU tens. */
export const STEP_BOUNDS_S = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5] as const

export const STEP_ADAPTER_BOUNDS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256] as const

/** Few, because every adapter has them: what feels instant, is noticed, is long. */
export const ADAPTER_TTFT_BOUNDS_S = [0.1, 0.5, 2.5] as const
export const ADAPTER_E2E_BOUNDS_S = [1, 5, 30] as const

/** A copy to the device takes a millisecond, a large adapter from a slow disk seconds. */
export const LOAD_BOUNDS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const

/** Of prometheus-fastapi-instrumentator, which vLLM uses. */
export const HTTP_BOUNDS_S = [0.1, 0.5, 1] as const
export const HTTP_FINE_BOUNDS_S = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
] as const

/** 1, 2 and 5 times powers of ten, up to the longest sequence. */
export function tokenCountBounds(maxModelLen: number): number[] {
  const bounds: number[] = []
  for (let power = 1; power <= maxModelLen; power *= 10) {
    for (const digit of [1, 2, 5]) if (digit * power <= maxModelLen) bounds.push(digit * power)
  }
  return bounds
}
