// After the q, k, v linears: q and k norms, rotation, and keys and values into their blocks. A warp a head. Grid: rows, groups of
// heads; one group where norms read whole rows, since q is written in place.
//
// KV of a layer: [numBlocks, keys | values, numKvHeads, blockSize, headDim]
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kRopeThreads = 256;
constexpr int kRopeWarps = kRopeThreads / kWarp;
constexpr int kMaxHeadDim = 256;

enum QkNorm : int32_t { kNoNorm = 0, kHeadNorm = 1, kRowNorm = 2 };

struct RopeParams {
  const StepHeader* step;
  const int32_t* positions;
  const int32_t* slotMapping;
  const AdapterRecord* const* adapters;
  void* qkv;            // [numTokens, (numHeads + 2 numKvHeads) headDim]
  void* kv;             // of this layer
  const float* cosines;  // [maxPositions, rotaryDim / 2]; null = no rotation
  const float* sines;
  const float* qWeight;
  const float* qBias;
  const float* kWeight;
  const float* kBias;
  int32_t qSite;
  int32_t kSite;
  int32_t qkNorm;
  int32_t isLayerNorm;
  int32_t numHeads;
  int32_t numKvHeads;
  int32_t headDim;
  int32_t rotaryDim;
  int32_t blockSize;
  float eps;
};

struct Moments {
  float mean;
  float inverse;
};

/** Of a whole row of q or k (OLMo 2). */
template <typename T> __device__ Moments rowMoments(const T* x, int width, const RopeParams& p, float* scratch) {
  float mean = 0;
  if (p.isLayerNorm) {
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += kRopeThreads) sum += toFloat(x[i]);
    mean = blockSum(sum, scratch) / width;
  }
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += kRopeThreads) squares += (toFloat(x[i]) - mean) * (toFloat(x[i]) - mean);
  return {mean, rsqrtf(blockSum(squares, scratch) / width + p.eps)};
}

__device__ Moments headMoments(const float* x, const RopeParams& p) {
  const int lane = threadIdx.x % kWarp;
  float mean = 0;
  if (p.isLayerNorm) {
    float sum = 0;
    for (int i = lane; i < p.headDim; i += kWarp) sum += x[i];
    mean = warpSum(sum) / p.headDim;
  }
  float squares = 0;
  for (int i = lane; i < p.headDim; i += kWarp) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, rsqrtf(warpSum(squares) / p.headDim + p.eps)};
}

template <typename T> __device__ void qkRopeKv(const RopeParams& p) {
  __shared__ float heads[kRopeWarps][kMaxHeadDim];
  __shared__ float scratch[kRopeWarps];
  const int row = blockIdx.x;
  if (row >= p.step->numTokens) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int dim = p.headDim, half = p.rotaryDim / 2;
  const int qWidth = p.numHeads * dim, kWidth = p.numKvHeads * dim;
  T* q = static_cast<T*>(p.qkv) + (size_t)row * (qWidth + 2 * kWidth);
  const T* k = q + qWidth;
  const T* v = k + kWidth;
  const AdapterRecord* adapter = p.adapters[row];
  const float *qWeight = p.qWeight, *qBias = p.qBias, *kWeight = p.kWeight, *kBias = p.kBias;
  if (p.qkNorm != kNoNorm && adapter != nullptr) {
    const NormEdit& qEdit = adapter->norms[p.qSite];
    const NormEdit& kEdit = adapter->norms[p.kSite];
    if (qEdit.weight != nullptr) qWeight = qEdit.weight, qBias = qEdit.bias;
    if (kEdit.weight != nullptr) kWeight = kEdit.weight, kBias = kEdit.bias;
  }
  Moments qRow = {0, 1}, kRow = {0, 1};
  if (p.qkNorm == kRowNorm) {
    qRow = rowMoments(q, qWidth, p, scratch);
    kRow = rowMoments(k, kWidth, p, scratch);
  }
  const int slot = p.slotMapping[row];
  const size_t blockElements = (size_t)2 * p.numKvHeads * p.blockSize * dim;
  const int offset = slot % p.blockSize;
  T* block = static_cast<T*>(p.kv) + (size_t)(slot / p.blockSize) * blockElements;
  const size_t position = p.positions[row];
  for (int head = blockIdx.y * kRopeWarps + warp; head < p.numHeads + p.numKvHeads; head += gridDim.y * kRopeWarps) {
    const bool isQuery = head < p.numHeads;
    const int index = isQuery ? head : head - p.numHeads;
    const T* from = (isQuery ? q : k) + (size_t)index * dim;
    float* x = heads[warp];
    for (int i = lane; i < dim; i += kWarp) x[i] = toFloat(from[i]);
    __syncwarp();
    if (p.qkNorm != kNoNorm) {
      const Moments m = p.qkNorm == kHeadNorm ? headMoments(x, p) : isQuery ? qRow : kRow;
      const int start = p.qkNorm == kHeadNorm ? 0 : index * dim;
      const float* weight = (isQuery ? qWeight : kWeight) + start;
      const float* bias = isQuery ? qBias : kBias;
      for (int i = lane; i < dim; i += kWarp) {
        x[i] = (x[i] - m.mean) * m.inverse * weight[i] + (bias == nullptr ? 0.f : bias[start + i]);
      }
      __syncwarp();
    }
    if (p.cosines != nullptr) {
      for (int i = lane; i < half; i += kWarp) {
        const float c = p.cosines[position * half + i], s = p.sines[position * half + i];
        const float a = x[i], b = x[i + half];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
      }
      __syncwarp();
    }
    T* to = isQuery ? q + (size_t)index * dim : block + ((size_t)index * p.blockSize + offset) * dim;
    if (isQuery || slot >= 0)
      for (int i = lane; i < dim; i += kWarp) to[i] = fromFloat<T>(x[i]);
    __syncwarp();
  }
  if (slot < 0 || blockIdx.y != 0) return;
  for (int i = threadIdx.x; i < kWidth; i += kRopeThreads) {
    const int head = i / dim;
    block[((size_t)(p.numKvHeads + head) * p.blockSize + offset) * dim + i % dim] = v[i];
  }
}

LORIKEET_KERNEL(qk_rope_kv, RopeParams, __launch_bounds__(kRopeThreads), qkRopeKv)

/** Keys and values that adapters give (prefix tuning, arXiv:2101.00190) go to their blocks. Grid: given tokens, layers. */
struct PrefixParams {
  const AdapterRecord* const* adapters;  // [numGiven]
  const int32_t* rows;                   // row of the adapter's prefix
  const int32_t* slots;
  void* kv;  // all layers
  int64_t layerElements;
  int32_t numKvHeads;
  int32_t headDim;
  int32_t blockSize;
};

template <typename T> __device__ void writePrefix(const PrefixParams& p) {
  const int given = blockIdx.x, layer = blockIdx.y;
  const AdapterRecord* adapter = p.adapters[given];
  const int dim = p.headDim, width = p.numKvHeads * dim;
  const int slot = p.slots[given], offset = slot % p.blockSize;
  const size_t source = ((size_t)layer * adapter->numVirtual + p.rows[given]) * width;
  T* block = static_cast<T*>(p.kv) + layer * p.layerElements + (size_t)(slot / p.blockSize) * 2 * width * p.blockSize;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const size_t key = ((size_t)(i / dim) * p.blockSize + offset) * dim + i % dim;
    block[key] = static_cast<const T*>(adapter->prefixKeys)[source + i];
    block[key + (size_t)width * p.blockSize] = static_cast<const T*>(adapter->prefixValues)[source + i];
  }
}

LORIKEET_KERNEL(write_prefix, PrefixParams, __launch_bounds__(256), writePrefix)

}  // namespace lorikeet
