// Second half of every linear's update: z = z · mul + add + B s, in place on what the base product wrote, for all linears of
// one output at once. A thread owns eight neighbouring columns, so that B is read once, 16 bytes at a time.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kExpandThreads = 128;
constexpr int kColumnsPerBlock = kExpandThreads * kLane;
/** Ranks whose sums are in shared memory at a time. */
constexpr int kRankChunk = 64;
/** Rows that share one read of B. */
constexpr int kMaxRows = 8;
/** Ranks of B in flight before the first use. */
constexpr int kRanksInFlight = 8;
constexpr int kMaxParts = 3;

struct ExpandParams {
  const StepHeader* step;
  const int32_t* numTiles;
  const RowTile* tiles;
  const float* scratch;  // [numSplits, capacityRows, shrinkStride]
  void* z;               // [rows, ldz]; a part begins at its column
  int64_t ldz;
  int32_t numSplits;
  int32_t capacityRows;
  int32_t numParts;
  int32_t sites[kMaxParts];
  int32_t firstColumn[kMaxParts];
  int32_t width[kMaxParts];
};

template <typename T, typename Z, int ROWS>
__device__ void expandRows(const ExpandParams& p, const SiteEdit& edit, const RowTile& tile, int firstRow, int firstRank,
                           int column, int part, float (&sums)[kMaxRows][kRankChunk]) {
  const int numRows = min(ROWS, tile.numRows - firstRow);
  const bool isActive = column < p.width[part];
  float z[ROWS][kLane] = {};
  for (int chunk = 0; chunk < edit.rank; chunk += kRankChunk) {
    const int numRanks = min(kRankChunk, edit.rank - chunk);
    __syncthreads();
    for (int at = threadIdx.x; at < ROWS * kRankChunk; at += kExpandThreads) {
      const int row = at / kRankChunk, rank = at % kRankChunk;
      float sum = 0;
      if (row < numRows && rank < numRanks) {
        const size_t stride = p.step->shrinkStride;
        const float* from = p.scratch + (size_t)(tile.firstRow + firstRow + row) * stride + firstRank + chunk + rank;
        for (int split = 0; split < p.numSplits; split++) sum += from[(size_t)split * p.capacityRows * stride];
      }
      sums[row][rank] = sum;
    }
    __syncthreads();
    if (!isActive) continue;
    const T* b = static_cast<const T*>(edit.b) + (size_t)chunk * edit.ldb + column;
    for (int rank = 0; rank < numRanks; rank += kRanksInFlight) {
      Raw8<T> raw[kRanksInFlight];
#pragma unroll
      for (int r = 0; r < kRanksInFlight; r++) {
        raw[r] = {};
        if (rank + r < numRanks) raw[r] = loadRaw(b + (size_t)(rank + r) * edit.ldb);
      }
#pragma unroll
      for (int r = 0; r < kRanksInFlight; r++) {
        float values[kLane];
        expandRaw(raw[r], values);
#pragma unroll
        for (int row = 0; row < ROWS; row++)
#pragma unroll
          for (int i = 0; i < kLane; i++) z[row][i] += sums[row][rank + r] * values[i];
      }
    }
  }
  if (!isActive) return;
  const int numColumns = min(kLane, p.width[part] - column);
#pragma unroll
  for (int row = 0; row < ROWS; row++) {
    if (row >= numRows) continue;
    Z* to = static_cast<Z*>(p.z) + (size_t)(tile.firstRow + firstRow + row) * p.ldz + p.firstColumn[part] + column;
    // A vocabulary may have any size, so rows of logits may begin anywhere.
    const bool isAligned = numColumns == kLane && p.ldz % kLane == 0;
    float base[kLane] = {};
    if (isAligned) load8(to, base);
    else for (int i = 0; i < numColumns; i++) base[i] = toFloat(to[i]);
#pragma unroll
    for (int i = 0; i < kLane; i++) {
      if (i >= numColumns) continue;
      const float mul = edit.mul == nullptr ? 1.f : edit.mul[column + i];
      const float add = edit.add == nullptr ? 0.f : edit.add[column + i];
      z[row][i] += base[i] * mul + add;
    }
    if (isAligned) store8(to, z[row]);
    else for (int i = 0; i < numColumns; i++) to[i] = fromFloat<Z>(z[row][i]);
  }
}

/** Grid: tiles of rows, blocks of columns of all parts. */
template <typename T, typename Z> __device__ void expandTile(const ExpandParams& p) {
  __shared__ float sums[kMaxRows][kRankChunk];
  if (blockIdx.x >= *p.numTiles) return;
  const RowTile tile = p.tiles[blockIdx.x];
  int part = 0, block = blockIdx.y, firstRank = 0;
  for (;;) {
    const int numBlocks = (p.width[part] + kColumnsPerBlock - 1) / kColumnsPerBlock;
    if (block < numBlocks) break;
    block -= numBlocks;
    firstRank += tile.adapter->sites[p.sites[part]].rank;
    part++;
  }
  const SiteEdit edit = tile.adapter->sites[p.sites[part]];
  if (edit.rank == 0 && edit.mul == nullptr && edit.add == nullptr) return;
  const int column = block * kColumnsPerBlock + threadIdx.x * kLane;
  for (int row = 0; row < tile.numRows;) {
    const int left = tile.numRows - row;
    if (left == 1) {
      expandRows<T, Z, 1>(p, edit, tile, row, firstRank, column, part, sums);
      row += 1;
    } else {
      expandRows<T, Z, kMaxRows>(p, edit, tile, row, firstRank, column, part, sums);
      row += kMaxRows;
    }
  }
}

template <typename T> __device__ void expand(const ExpandParams& p) { expandTile<T, T>(p); }
template <typename T> __device__ void expandLogits(const ExpandParams& p) { expandTile<T, float>(p); }

LORIKEET_KERNEL(expand, ExpandParams, __launch_bounds__(kExpandThreads), expand)
LORIKEET_KERNEL(expand_logits, ExpandParams, __launch_bounds__(kExpandThreads), expandLogits)

}  // namespace lorikeet
