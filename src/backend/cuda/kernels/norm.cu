// Between two linears: hidden += postNorm(delta), then the next linear's input = preNorm(hidden). One block a row.
// RMSNorm: arXiv:1910.07467. LayerNorm: arXiv:1607.06450.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

/** Few rows decode at a time: a row's own threads are all there is to hide latency with. */
constexpr int kNormThreads = 512;

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

__device__ void normalizeRow(const NormSite& norm, const AdapterRecord* adapter, const NormParams& p, float* row, float* scratch) {
  if (norm.weight == nullptr) return;
  const float* weight = norm.weight;
  const float* bias = norm.bias;
  if (adapter != nullptr && adapter->norms[norm.site].weight != nullptr) {
    weight = adapter->norms[norm.site].weight;
    bias = adapter->norms[norm.site].bias;
  }
  const int width = p.hiddenSize;
  float mean = 0;
  if (p.isLayerNorm) {
    float sum = 0;
  #pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) sum += row[i];
    mean = blockSum(sum, scratch) / width;
  }
  float squares = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) squares += (row[i] - mean) * (row[i] - mean);
  const float inverse = rsqrtf(blockSum(squares, scratch) / width + p.eps);
#pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
    float y = (row[i] - mean) * inverse * weight[i];
    if (bias != nullptr) y += bias[i];
    row[i] = y;
  }
}

template <typename T> __device__ void residualNorm(const NormParams& p) {
  extern __shared__ float row[];
  __shared__ float scratch[kNormThreads / kWarp];
  const int outRow = blockIdx.x;
  if (outRow >= *p.numRows) return;
  const size_t width = p.hiddenSize;
  const size_t hiddenRow = p.rowIds == nullptr ? outRow : p.rowIds[outRow];
  const AdapterRecord* adapter = p.adapters[outRow];
  float* hidden = p.hidden + hiddenRow * width;
  if (p.delta != nullptr) {
    const T* delta = static_cast<const T*>(p.delta) + hiddenRow * width;
  #pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) row[i] = toFloat(delta[i]);
    normalizeRow(p.post, adapter, p, row, scratch);
  #pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) {
      row[i] += hidden[i];
      hidden[i] = row[i];
    }
  } else {
  #pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) row[i] = hidden[i];
  }
  normalizeRow(p.pre, adapter, p, row, scratch);
  T* out = static_cast<T*>(p.out) + (size_t)outRow * width;
#pragma unroll 8
  for (int i = threadIdx.x; i < width; i += kNormThreads) out[i] = fromFloat<T>(row[i]);
}

LORIKEET_KERNEL(residual_norm, NormParams, __launch_bounds__(kNormThreads), residualNorm)

}  // namespace lorikeet
