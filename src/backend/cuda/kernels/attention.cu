// Paged attention of single query rows with flash-style running softmax (FlashAttention, arXiv:2205.14135; PagedAttention,
// arXiv:2309.06180). Query heads that share a KV head are computed together (GQA, arXiv:2305.13245), so that keys and values
// are read once; long contexts are split over blocks and merged by attention_combine.
//
// A key takes LANES lanes of 8 dims; a warp works on 32 / LANES keys at a time.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kAttentionThreads = 128;
constexpr int kAttentionWarps = kAttentionThreads / kWarp;
constexpr int kChunks = 1;  // of 8 dims a lane
/** Blocks of a multiprocessor: with two, as the compiler would have it, loads and sums took turns (1.6 TB/s; now 2.0). */
constexpr int kAttentionBlocks = 4;
/** Keys a lane group has in flight. */
constexpr int kKeysInFlight = 4;

struct AttentionParams {
  const StepHeader* step;
  const int32_t* numVisible;  // keys a row sees, itself included
  const int32_t* seqOfRow;
  const int32_t* blockTables;  // [numSeqs, tableStride]
  const void* qkv;             // q of a row comes first
  const void* kv;              // of this layer
  void* out;                   // [rows, numHeads headDim]
  float* partialSums;          // [rows, numHeads, numSplits, headDim]
  float2* partialStats;        // [rows, numHeads, numSplits]: largest score, sum of powers
  int32_t qkvWidth;
  int32_t numHeads;
  int32_t numKvHeads;
  int32_t headDim;
  int32_t blockSize;
  int32_t window;  // keys visible; 0 = all
  int32_t numSplits;
  float scale;
  float softcap;  // 0 = none
};

template <int HEADS> struct Running {
  float largest[HEADS];
  float sum[HEADS];
  float values[HEADS][kChunks * kLane];
};

/** Merges what another lane group of the warp has. */
template <int HEADS> __device__ void mergeLanes(Running<HEADS>& mine, int laneStep) {
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    const float otherLargest = __shfl_xor_sync(kFullMask, mine.largest[h], laneStep);
    const float otherSum = __shfl_xor_sync(kFullMask, mine.sum[h], laneStep);
    const float largest = fmaxf(mine.largest[h], otherLargest);
    const float keep = largest == -INFINITY ? 0.f : __expf(mine.largest[h] - largest);
    const float take = largest == -INFINITY ? 0.f : __expf(otherLargest - largest);
    mine.sum[h] = mine.sum[h] * keep + otherSum * take;
#pragma unroll
    for (int i = 0; i < kChunks * kLane; i++) {
      const float other = __shfl_xor_sync(kFullMask, mine.values[h][i], laneStep);
      mine.values[h][i] = mine.values[h][i] * keep + other * take;
    }
    mine.largest[h] = largest;
  }
}

/** HEADS query heads of one KV head. `dim` of this lane's chunk c is (c * LANES + laneOfKey) * 8. */
template <typename T, int LANES, int HEADS> __device__ void attend(const AttentionParams& p) {
  constexpr int kKeysPerWarp = kWarp / LANES;
  constexpr int kHeadDim = LANES * kChunks * kLane;
  __shared__ float2 warpStats[kAttentionWarps][HEADS];
  __shared__ float warpValues[kAttentionWarps][HEADS][kHeadDim];
  const int row = blockIdx.x;
  if (row >= p.step->numTokens) return;
  const int groupSize = p.numHeads / p.numKvHeads;
  const int numChunksOfHeads = (groupSize + HEADS - 1) / HEADS;
  const int kvHead = blockIdx.y / numChunksOfHeads;
  const int firstHead = (blockIdx.y % numChunksOfHeads) * HEADS;
  const int numHeads = min(HEADS, groupSize - firstHead);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int laneOfKey = lane % LANES, keyOfLane = lane / LANES;
  const int dim = p.headDim;

  const int numVisible = p.numVisible[row];
  const int firstVisible = p.window > 0 ? max(0, numVisible - p.window) : 0;
  const int perSplit = (numVisible - firstVisible + p.numSplits - 1) / p.numSplits;
  const int first = firstVisible + blockIdx.z * perSplit;
  const int last = min(numVisible, first + perSplit);
  const int32_t* table = p.blockTables + (size_t)p.seqOfRow[row] * p.step->tableStride;
  const size_t blockElements = (size_t)2 * p.numKvHeads * p.blockSize * dim;
  const size_t valueOffset = (size_t)p.numKvHeads * p.blockSize * dim;
  const T* kv = static_cast<const T*>(p.kv) + (size_t)kvHead * p.blockSize * dim;

  float q[HEADS][kChunks * kLane];
  const T* query = static_cast<const T*>(p.qkv) + (size_t)row * p.qkvWidth + (size_t)(kvHead * groupSize + firstHead) * dim;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      const int start = (c * LANES + laneOfKey) * kLane;
      float x[kLane] = {};
      if (h < numHeads && start < dim) load8(query + h * dim + start, x);
#pragma unroll
      for (int i = 0; i < kLane; i++) q[h][c * kLane + i] = x[i] * p.scale;
    }
  }

  Running<HEADS> mine;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    mine.largest[h] = -INFINITY;
    mine.sum[h] = 0;
#pragma unroll
    for (int i = 0; i < kChunks * kLane; i++) mine.values[h][i] = 0;
  }

  for (int base = first + warp * kKeysPerWarp * kKeysInFlight; base < last; base += kAttentionThreads / LANES * kKeysInFlight) {
    Raw8<T> keys[kKeysInFlight][kChunks], values[kKeysInFlight][kChunks];
    bool isVisible[kKeysInFlight];
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
      const int key = base + u * kKeysPerWarp + keyOfLane;
      isVisible[u] = key < last;
      const int readable = isVisible[u] ? key : first;
      const T* from = kv + (size_t)table[readable / p.blockSize] * blockElements + (size_t)(readable % p.blockSize) * dim;
#pragma unroll
      for (int c = 0; c < kChunks; c++) {
        const int start = (c * LANES + laneOfKey) * kLane;
        keys[u][c] = {};
        values[u][c] = {};
        if (start < dim) {
          keys[u][c] = loadRaw(from + start);
          values[u][c] = loadRaw(from + valueOffset + start);
        }
      }
    }
    float scores[kKeysInFlight][HEADS];
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
      float k[kChunks][kLane];
#pragma unroll
      for (int c = 0; c < kChunks; c++) expandRaw(keys[u][c], k[c]);
#pragma unroll
      for (int h = 0; h < HEADS; h++) {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < kChunks; c++)
#pragma unroll
          for (int i = 0; i < kLane; i++) sum += q[h][c * kLane + i] * k[c][i];
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kFullMask, sum, step);
        if (p.softcap > 0) sum = p.softcap * tanhf(sum / p.softcap);
        scores[u][h] = isVisible[u] ? sum : -INFINITY;
      }
    }
    float powers[kKeysInFlight][HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float largest = mine.largest[h];
#pragma unroll
      for (int u = 0; u < kKeysInFlight; u++) largest = fmaxf(largest, scores[u][h]);
      const float keep = largest == -INFINITY ? 1.f : __expf(mine.largest[h] - largest);
      mine.sum[h] *= keep;
#pragma unroll
      for (int i = 0; i < kChunks * kLane; i++) mine.values[h][i] *= keep;
#pragma unroll
      for (int u = 0; u < kKeysInFlight; u++) {
        powers[u][h] = isVisible[u] ? __expf(scores[u][h] - largest) : 0.f;
        mine.sum[h] += powers[u][h];
      }
      mine.largest[h] = largest;
    }
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
#pragma unroll
      for (int c = 0; c < kChunks; c++) {
        float v[kLane];
        expandRaw(values[u][c], v);
        if (!isVisible[u]) continue;  // what lies there may be no number, and 0 · inf is none
#pragma unroll
        for (int h = 0; h < HEADS; h++)
#pragma unroll
          for (int i = 0; i < kLane; i++) mine.values[h][c * kLane + i] += powers[u][h] * v[i];
      }
    }
  }

#pragma unroll
  for (int step = LANES; step < kWarp; step *= 2) mergeLanes(mine, step);
  if (keyOfLane == 0) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      if (laneOfKey == 0) warpStats[warp][h] = {mine.largest[h], mine.sum[h]};
#pragma unroll
      for (int c = 0; c < kChunks; c++)
#pragma unroll
        for (int i = 0; i < kLane; i++) warpValues[warp][h][(c * LANES + laneOfKey) * kLane + i] = mine.values[h][c * kLane + i];
    }
  }
  __syncthreads();
  for (int at = threadIdx.x; at < numHeads * dim; at += kAttentionThreads) {
    const int h = at / dim, i = at % dim;
    float largest = -INFINITY, sum = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kAttentionWarps; w++) largest = fmaxf(largest, warpStats[w][h].x);
#pragma unroll
    for (int w = 0; w < kAttentionWarps; w++) {
      const float weight = largest == -INFINITY ? 0.f : __expf(warpStats[w][h].x - largest);
      sum += warpStats[w][h].y * weight;
      value += warpValues[w][h][i] * weight;
    }
    const size_t head = (size_t)row * p.numHeads + kvHead * groupSize + firstHead + h;
    if (p.numSplits == 1) {
      static_cast<T*>(p.out)[head * dim + i] = fromFloat<T>(sum == 0 ? 0.f : value / sum);
    } else {
      const size_t partial = head * p.numSplits + blockIdx.z;
      p.partialSums[partial * dim + i] = value;
      if (i == 0) p.partialStats[partial] = {largest, sum};
    }
  }
}

// Heads wait for memory: groups of two or three lose little in a kernel made for four, and every variant costs build time.
// Float32 is for comparing, so it has one variant.
#define LORIKEET_ATTEND(lanes, heads, suffix, T)                                                                       \
  extern "C" __global__ void __launch_bounds__(kAttentionThreads, kAttentionBlocks)                                   \
      attention_##lanes##x##heads##_##suffix(const __grid_constant__ AttentionParams p) {                             \
    attend<T, lanes, heads>(p);                                                                                       \
  }

#define LORIKEET_ATTENTION(lanes)                                                                                      \
  LORIKEET_ATTEND(lanes, 1, bf16, bf16)                                                                               \
  LORIKEET_ATTEND(lanes, 4, bf16, bf16)                                                                               \
  LORIKEET_ATTEND(lanes, 1, f16, f16)                                                                                 \
  LORIKEET_ATTEND(lanes, 4, f16, f16)                                                                                 \
  LORIKEET_ATTEND(lanes, 1, f32, float)

LORIKEET_ATTENTION(4)
LORIKEET_ATTENTION(8)
LORIKEET_ATTENTION(16)
LORIKEET_ATTENTION(32)

/** Most splits; one a lane. */
constexpr int kMaxSplits = kWarp;

/** Grid: rows, heads. */
template <typename T> __device__ void combine(const AttentionParams& p) {
  __shared__ float weights[kMaxSplits];
  const int row = blockIdx.x;
  if (row >= p.step->numTokens) return;
  const size_t head = (size_t)row * p.numHeads + blockIdx.y;
  if (threadIdx.x < kMaxSplits) {
    const bool isSplit = (int)threadIdx.x < p.numSplits;
    const float2 stats = isSplit ? p.partialStats[head * p.numSplits + threadIdx.x] : float2{-INFINITY, 0};
    float largest = stats.x;
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, step));
    const float weight = largest == -INFINITY ? 0.f : __expf(stats.x - largest);
    const float sum = warpSum(stats.y * weight);
    weights[threadIdx.x] = sum == 0 ? 0.f : weight / sum;
  }
  __syncthreads();
  const float* sums = p.partialSums + head * p.numSplits * p.headDim;
  for (int i = threadIdx.x; i < p.headDim; i += blockDim.x) {
    float value = 0;
#pragma unroll 16
    for (int s = 0; s < p.numSplits; s++) value += sums[(size_t)s * p.headDim + i] * weights[s];
    static_cast<T*>(p.out)[head * p.headDim + i] = fromFloat<T>(value);
  }
}

LORIKEET_KERNEL(attention_combine, AttentionParams, __launch_bounds__(128), combine)

}  // namespace lorikeet
