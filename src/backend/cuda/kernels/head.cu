// Scores of the vocabulary: an adapter's own head rows, soft cap, largest score.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kHeadThreads = 256;

struct HeadRowsParams {
  const int32_t* numRows;
  const AdapterRecord* const* adapters;  // [logit rows]
  const void* in;                        // [logit rows, hidden]
  const float* bias;                     // base bias of the head or null
  float* logits;                         // [logit rows, vocab]
  int32_t hiddenSize;
  int32_t vocabSize;
};

/** Grid: logit rows, any number of blocks that share the adapter's rows. A warp a row of the head. */
template <typename T> __device__ void headRows(const HeadRowsParams& p) {
  const int row = blockIdx.x;
  if (row >= *p.numRows) return;
  const AdapterRecord* adapter = p.adapters[row];
  if (adapter == nullptr) return;
  const int lane = threadIdx.x % kWarp;
  const int numWarps = gridDim.y * blockDim.x / kWarp;
  const T* x = static_cast<const T*>(p.in) + (size_t)row * p.hiddenSize;
  for (int i = (blockIdx.y * blockDim.x + threadIdx.x) / kWarp; i < adapter->numHeadRows; i += numWarps) {
    const T* weight = static_cast<const T*>(adapter->headRows) + (size_t)i * p.hiddenSize;
    float sum = 0;
    for (int k = lane; k < p.hiddenSize; k += kWarp) sum += toFloat(x[k]) * toFloat(weight[k]);
    sum = warpSum(sum);
    const int id = adapter->headRowIds[i];
    if (lane == 0) p.logits[(size_t)row * p.vocabSize + id] = sum + (p.bias == nullptr ? 0.f : p.bias[id]);
  }
}

LORIKEET_KERNEL(head_rows, HeadRowsParams, __launch_bounds__(kHeadThreads), headRows)

struct SoftcapParams {
  float* logits;
  int64_t count;
  float cap;
};

/** cap · tanh(x / cap), Gemma 2's (arXiv:2408.00118). */
extern "C" __global__ void softcap(const __grid_constant__ SoftcapParams p) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.count) p.logits[i] = p.cap * tanhf(p.logits[i] / p.cap);
}

struct ArgmaxParams {
  const int32_t* numRows;
  const float* logits;
  int32_t* tokenIds;
  int32_t vocabSize;
};

constexpr int kArgmaxThreads = 1024;

/** One block a row; the first of equals wins, as in every other backend. */
extern "C" __global__ void __launch_bounds__(kArgmaxThreads) argmax(const __grid_constant__ ArgmaxParams p) {
  __shared__ float bestScores[kArgmaxThreads / kWarp];
  __shared__ int bestIds[kArgmaxThreads / kWarp];
  const int row = blockIdx.x;
  if (row >= *p.numRows) return;
  const float* logits = p.logits + (size_t)row * p.vocabSize;
  float best = -INFINITY;
  int bestId = 0x7fffffff;
  for (int id = threadIdx.x; id < p.vocabSize; id += kArgmaxThreads) {
    const float score = logits[id];
    if (score > best || bestId == 0x7fffffff) best = score, bestId = id;
  }
  const auto take = [&](float score, int id) {
    if (score > best || (score == best && id < bestId)) best = score, bestId = id;
  };
  for (int step = kWarp / 2; step > 0; step /= 2)
    take(__shfl_xor_sync(kFullMask, best, step), __shfl_xor_sync(kFullMask, bestId, step));
  if (threadIdx.x % kWarp == 0) bestScores[threadIdx.x / kWarp] = best, bestIds[threadIdx.x / kWarp] = bestId;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  best = bestScores[threadIdx.x];
  bestId = bestIds[threadIdx.x];
  for (int step = kWarp / 2; step > 0; step /= 2)
    take(__shfl_xor_sync(kFullMask, best, step), __shfl_xor_sync(kFullMask, bestId, step));
  if (threadIdx.x == 0) p.tokenIds[row] = bestId;
}

}  // namespace lorikeet
