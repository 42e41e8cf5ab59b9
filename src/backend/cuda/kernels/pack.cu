// Float32 arrays of the host, as they come over the bus, become what kernels read: element type, scales, transposed or not.
#include "common.cuh"

namespace lorikeet {

struct PackParams {
  const float* in;       // [numRows, numColumns]
  void* out;             // [numRows, ldOut], or [numColumns, ldOut] transposed
  const float* rowScale;  // [numRows] or null
  int64_t numRows;
  int64_t numColumns;
  int64_t ldOut;
  float scale;
  int32_t isTransposed;
};

constexpr int kTile = 32;

/** A tile a block, through shared memory, so that both sides are read and written along their rows. Block: 32 x 8. */
template <typename T> __device__ void pack(const PackParams& p) {
  __shared__ float tile[kTile][kTile + 1];
  const int64_t column = (int64_t)blockIdx.x * kTile + threadIdx.x;
  const int64_t firstRow = (int64_t)blockIdx.y * kTile;
  T* out = static_cast<T*>(p.out);
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const int64_t row = firstRow + i;
    if (row >= p.numRows || column >= p.numColumns) continue;
    const float x = p.in[row * p.numColumns + column] * p.scale * (p.rowScale == nullptr ? 1.f : p.rowScale[row]);
    if (p.isTransposed) tile[i][threadIdx.x] = x;
    else out[row * p.ldOut + column] = fromFloat<T>(x);
  }
  if (!p.isTransposed) return;
  __syncthreads();
  const int64_t row = firstRow + threadIdx.x;
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const int64_t outRow = (int64_t)blockIdx.x * kTile + i;
    if (row < p.numRows && outRow < p.numColumns) out[outRow * p.ldOut + row] = fromFloat<T>(tile[threadIdx.x][i]);
  }
}

LORIKEET_KERNEL(pack, PackParams, __launch_bounds__(256), pack)

}  // namespace lorikeet
