// Second half of every linear's update: z = z · mul + add + B s, in place on what the base product wrote, for all linears of
// one output at once. A thread owns eight neighbouring columns, so that B is read once, 16 bytes at a time.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kExpandThreads = 128;
/** Blocks of a multiprocessor, where the compiler would spend their registers on one. */
constexpr int kExpandBlocks = 3;
constexpr int kColumnsPerBlock = kExpandThreads * kLane;
/** Rows that share one read of B; blockIdx.z counts such groups of a tile. */
constexpr int kMaxRows = 8;

/**
 * Ranks whose rows of B are in flight at once, issued before the sums they wait for are read. With more rows a thread has more
 * sums to keep, and fewer registers for loads.
 */
template <int ROWS> constexpr int kRankChunk = ROWS == 1 ? 16 : 8;
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
                           int column, int part, float (&sums)[ROWS][kRankChunk<ROWS>]) {
  constexpr int kRanks = kRankChunk<ROWS>;
  constexpr int kLanesPerSum = kExpandThreads / (ROWS * kRanks);
  const int numRows = min(ROWS, tile.numRows - firstRow);
  const bool isActive = column < p.width[part];
  float z[ROWS][kLane] = {};
  for (int chunk = 0; chunk < edit.rank; chunk += kRanks) {
    const int numRanks = min(kRanks, edit.rank - chunk);
    const T* b = static_cast<const T*>(edit.b) + (size_t)chunk * edit.ldb + column;
    Raw8<T> raw[kRanks];
#pragma unroll
    for (int r = 0; r < kRanks; r++) {
      raw[r] = {};
      if (isActive && r < numRanks) raw[r] = loadRaw(b + (size_t)r * edit.ldb);
    }
    __syncthreads();
    const int at = threadIdx.x / kLanesPerSum, lane = threadIdx.x % kLanesPerSum;
    const int row = at / kRanks, rank = at % kRanks;
    float sum = 0;
    if (row < numRows && rank < numRanks) {
      const size_t stride = p.step->shrinkStride;
      const float* from = p.scratch + (size_t)(tile.firstRow + firstRow + row) * stride + firstRank + chunk + rank;
#pragma unroll 4
      for (int split = lane; split < p.numSplits; split += kLanesPerSum) sum += from[(size_t)split * p.capacityRows * stride];
    }
#pragma unroll
    for (int step = kLanesPerSum / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kFullMask, sum, step);
    if (lane == 0) sums[row][rank] = sum;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRanks; r++) {
      float values[kLane];
      expandRaw(raw[r], values);
#pragma unroll
      for (int row = 0; row < ROWS; row++)
#pragma unroll
        for (int i = 0; i < kLane; i++) z[row][i] += sums[row][r] * values[i];
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

/** Grid: tiles of rows, blocks of columns of all parts, groups of rows of a tile. */
template <typename T, typename Z, int ROWS> __device__ void expandTile(const ExpandParams& p) {
  __shared__ float sums[ROWS][kRankChunk<ROWS>];
  RowTile tile;
  if (!readTile(p.tiles, p.numTiles, tile)) return;
  int part = 0, block = blockIdx.y, firstRank = 0;
  for (;;) {
    const int numBlocks = (p.width[part] + kColumnsPerBlock - 1) / kColumnsPerBlock;
    if (block < numBlocks) break;
    block -= numBlocks;
    firstRank += siteOf(tile.adapter, p.sites[part]).rank;
    part++;
  }
  const SiteEdit edit = siteOf(tile.adapter, p.sites[part]);
  if (edit.rank == 0 && edit.mul == nullptr && edit.add == nullptr) return;
  const int column = block * kColumnsPerBlock + threadIdx.x * kLane;
  const int row = blockIdx.z * ROWS;
  if (row < tile.numRows) expandRows<T, Z, ROWS>(p, edit, tile, row, firstRank, column, part, sums);
}

/** Every tile has one row: a decode step in which no two rows share an adapter. */
template <typename T> __device__ void expandSingle(const ExpandParams& p) { expandTile<T, T, 1>(p); }
template <typename T> __device__ void expand(const ExpandParams& p) { expandTile<T, T, kMaxRows>(p); }
template <typename T> __device__ void expandLogits(const ExpandParams& p) { expandTile<T, float, kMaxRows>(p); }

LORIKEET_KERNEL(expand_single, ExpandParams, __launch_bounds__(kExpandThreads), expandSingle)
LORIKEET_KERNEL(expand, ExpandParams, __launch_bounds__(kExpandThreads, kExpandBlocks), expand)
LORIKEET_KERNEL(expand_logits, ExpandParams, __launch_bounds__(kExpandThreads), expandLogits)

}  // namespace lorikeet
