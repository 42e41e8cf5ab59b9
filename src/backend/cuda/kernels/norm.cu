// Between two linears: hidden += postNorm(delta), then the next linear's input = preNorm(hidden). One block a row.
// RMSNorm: arXiv:1910.07467. LayerNorm: arXiv:1607.06450.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

/** Few rows decode at a time: a row's own threads are all there is to hide latency with. */
constexpr int kNormThreads = 512;
/** A row stays in registers: hidden sizes up to 512 · 8 · 4 = 16,384. */
constexpr int kNormRuns = 4;

struct NormSite {
  const float* weight;  // Gemma's +1 already added; null = no norm here, the identity
  const float* bias;
  int32_t site;  // index into AdapterRecord.norms
  int32_t reserved;
};

struct NormParams {
  const AdapterRecord* const* adapters;  // [output rows]
  const int32_t* rowIds;                 // hidden row of each output row; null = the same
  const int32_t* numRows;
  float* hidden;
  const void* delta;  // [hidden rows, hiddenSize] or null
  void* out;
  NormSite post;
  NormSite pre;
  int32_t hiddenSize;
  int32_t isLayerNorm;
  float eps;
};

/** A thread's share of a row: runs of eight, a block's width apart. */
struct RowPart {
  float x[kNormRuns][kLane];
};

__device__ __forceinline__ int columnOf(int run) { return (run * kNormThreads + threadIdx.x) * kLane; }

__device__ void normalize(RowPart& row, const NormSite& norm, const AdapterRecord* adapter, const NormParams& p, float* scratch) {
  if (norm.weight == nullptr) return;
  const float* weight = norm.weight;
  const float* bias = norm.bias;
  if (adapter != nullptr && adapter->norms[norm.site].weight != nullptr) {
    weight = adapter->norms[norm.site].weight;
    bias = adapter->norms[norm.site].bias;
  }
  // Read before the sums, which take longer than the reads.
  RowPart weights = {};
#pragma unroll
  for (int run = 0; run < kNormRuns; run++)
    if (columnOf(run) < p.hiddenSize) load8(weight + columnOf(run), weights.x[run]);
  float mean = 0;
  if (p.isLayerNorm) {
    float sum = 0;
#pragma unroll
    for (int run = 0; run < kNormRuns; run++)
#pragma unroll
      for (int i = 0; i < kLane; i++) sum += row.x[run][i];
    mean = blockSum(sum, scratch) / p.hiddenSize;
  }
  float squares = 0;
#pragma unroll
  for (int run = 0; run < kNormRuns; run++) {
    if (columnOf(run) >= p.hiddenSize) continue;
#pragma unroll
    for (int i = 0; i < kLane; i++) squares += (row.x[run][i] - mean) * (row.x[run][i] - mean);
  }
  const float inverse = rsqrtf(blockSum(squares, scratch) / p.hiddenSize + p.eps);
#pragma unroll
  for (int run = 0; run < kNormRuns; run++) {
    if (columnOf(run) >= p.hiddenSize) continue;
    float biases[kLane] = {};
    if (bias != nullptr) load8(bias + columnOf(run), biases);
#pragma unroll
    for (int i = 0; i < kLane; i++) row.x[run][i] = (row.x[run][i] - mean) * inverse * weights.x[run][i] + biases[i];
  }
}

template <typename T> __device__ void residualNorm(const NormParams& p) {
  __shared__ float scratch[kNormThreads / kWarp];
  const int outRow = blockIdx.x;
  if (outRow >= *p.numRows) return;
  const size_t width = p.hiddenSize;
  const size_t hiddenRow = p.rowIds == nullptr ? outRow : p.rowIds[outRow];
  const AdapterRecord* adapter = p.adapters[outRow];
  float* hidden = p.hidden + hiddenRow * width;
  RowPart stream = {}, row = {};
#pragma unroll
  for (int run = 0; run < kNormRuns; run++) {
    if (columnOf(run) >= p.hiddenSize) continue;
    load8(hidden + columnOf(run), stream.x[run]);
    if (p.delta != nullptr) load8(static_cast<const T*>(p.delta) + hiddenRow * width + columnOf(run), row.x[run]);
  }
  if (p.delta != nullptr) {
    normalize(row, p.post, adapter, p, scratch);
#pragma unroll
    for (int run = 0; run < kNormRuns; run++) {
      if (columnOf(run) >= p.hiddenSize) continue;
#pragma unroll
      for (int i = 0; i < kLane; i++) stream.x[run][i] += row.x[run][i];
      store8(hidden + columnOf(run), stream.x[run]);
    }
  }
  normalize(stream, p.pre, adapter, p, scratch);
  T* out = static_cast<T*>(p.out) + (size_t)outRow * width;
#pragma unroll
  for (int run = 0; run < kNormRuns; run++)
    if (columnOf(run) < p.hiddenSize) store8(out + columnOf(run), stream.x[run]);
}

LORIKEET_KERNEL(residual_norm, NormParams, __launch_bounds__(kNormThreads), residualNorm)

}  // namespace lorikeet
