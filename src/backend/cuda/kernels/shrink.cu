// First half of every low-rank update: s = A x, for all linears that share an input at once (q, k, v; gate, up), every row with
// its own adapter and rank (SGMV, Punica, arXiv:2310.18547). A block takes one tile of rows of one adapter and a part of the
// input's columns, so that an adapter's bytes are read exactly once; partial sums are written side by side, never added
// by atomics, so that results do not depend on timing.
//
// Tensor cores want a pair of neighbouring columns in each register. A sum over columns may take them in any order as long as
// both operands agree, so each lane loads eight neighbours of a row in one 16-byte read and feeds them to two instructions.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

constexpr int kShrinkThreads = 128;
constexpr int kShrinkWarps = kShrinkThreads / kWarp;
constexpr int kMmaRows = 16;
constexpr int kMmaRanks = 8;
/** Columns of one load of a warp: four lanes share a row. */
constexpr int kStepColumns = 4 * kLane;
constexpr int kMaxParts = 3;

struct ShrinkParams {
  const StepHeader* step;
  const int32_t* numTiles;
  const RowTile* tiles;
  const void* x;    // [rows, numIn]
  float* scratch;   // [numSplits, capacityRows, shrinkStride]
  int32_t numIn;
  int32_t columnsPerSplit;
  int32_t capacityRows;
  int32_t numParts;
  int32_t sites[kMaxParts];
};

__device__ __forceinline__ void mma(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, bf16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(float (&sum)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, f16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/** A matrices of the parts, as if their ranks were rows of one matrix. */
template <typename T> struct RankRows {
  const T* a[kMaxParts];
  int end[kMaxParts];  // first rank after the part
  int numIn;

  __device__ RankRows(const ShrinkParams& p, const AdapterRecord* adapter) : numIn(p.numIn) {
    int total = 0;
#pragma unroll
    for (int part = 0; part < kMaxParts; part++) {
      const SiteEdit* edit = part < p.numParts ? &siteOf(adapter, p.sites[part]) : nullptr;
      a[part] = edit == nullptr ? nullptr : static_cast<const T*>(edit->a);
      total += edit == nullptr ? 0 : edit->rank;
      end[part] = total;
    }
  }
  __device__ int total() const { return end[kMaxParts - 1]; }
  __device__ const T* row(int rank) const {
    if (rank < end[0]) return a[0] + (size_t)rank * numIn;
    if (rank < end[1]) return a[1] + (size_t)(rank - end[0]) * numIn;
    return rank < end[2] ? a[2] + (size_t)(rank - end[1]) * numIn : nullptr;
  }
};

/**
 * ROW_TILES tiles of 16 rows; RANK_TILES tiles of 8 ranks a pass; STEPS loads of each in flight before the first use. Registers
 * decide: more loads a thread leave room for fewer threads, and what counts is their product on the multiprocessor.
 */
template <typename T, int ROW_TILES, int RANK_TILES, int STEPS> __device__ void shrink(const ShrinkParams& p) {
  constexpr int kRanks = RANK_TILES * kMmaRanks;
  __shared__ float sums[ROW_TILES * kMmaRows][kRanks + 1];
  RowTile tile;
  if (!readTile(p.tiles, p.numTiles, tile)) return;
  const RankRows<T> ranks(p, tile.adapter);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int laneRow = lane / 4, laneColumn = (lane % 4) * kLane;
  const int perWarp = p.columnsPerSplit / kShrinkWarps;
  const int firstColumn = blockIdx.y * p.columnsPerSplit + warp * perWarp;
  const int endColumn = min(p.numIn, firstColumn + perWarp);
  const T* x = static_cast<const T*>(p.x) + (size_t)tile.firstRow * p.numIn;
  float* out = p.scratch + ((size_t)blockIdx.y * p.capacityRows + tile.firstRow) * p.step->shrinkStride;

  for (int firstRank = 0; firstRank < ranks.total(); firstRank += kRanks) {
    const T* rows[RANK_TILES];
#pragma unroll
    for (int t = 0; t < RANK_TILES; t++) rows[t] = ranks.row(firstRank + t * kMmaRanks + laneRow);
    float sum[ROW_TILES][RANK_TILES][4] = {};
    for (int column = firstColumn; column < endColumn; column += STEPS * kStepColumns) {
      uint4 b[STEPS][RANK_TILES];
#pragma unroll
      for (int s = 0; s < STEPS; s++) {
        const int at = column + s * kStepColumns + laneColumn;
#pragma unroll
        for (int t = 0; t < RANK_TILES; t++) {
          b[s][t] = {};
          if (rows[t] != nullptr && at < endColumn) b[s][t] = __ldcs(reinterpret_cast<const uint4*>(rows[t] + at));
        }
      }
#pragma unroll
      for (int m = 0; m < ROW_TILES; m++) {
        if (m * kMmaRows >= tile.numRows) continue;
        const int low = m * kMmaRows + laneRow, high = low + kMmaRows / 2;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
          const int at = column + s * kStepColumns + laneColumn;
          uint4 a0 = {}, a1 = {};
          if (at < endColumn && low < tile.numRows) a0 = *reinterpret_cast<const uint4*>(x + (size_t)low * p.numIn + at);
          if (at < endColumn && high < tile.numRows) a1 = *reinterpret_cast<const uint4*>(x + (size_t)high * p.numIn + at);
#pragma unroll
          for (int t = 0; t < RANK_TILES; t++) {
            mma(sum[m][t], a0.x, a1.x, a0.y, a1.y, b[s][t].x, b[s][t].y, T{});
            mma(sum[m][t], a0.z, a1.z, a0.w, a1.w, b[s][t].z, b[s][t].w, T{});
          }
        }
      }
    }
    for (int turn = 0; turn < kShrinkWarps; turn++) {
      if (warp == turn) {
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
          for (int t = 0; t < RANK_TILES; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
              float& target = sums[m * kMmaRows + laneRow + (i / 2) * 8][t * kMmaRanks + (lane % 4) * 2 + i % 2];
              target = turn == 0 ? sum[m][t][i] : target + sum[m][t][i];
            }
      }
      __syncthreads();
    }
    const int numRanks = min(kRanks, ranks.total() - firstRank);
    for (int at = threadIdx.x; at < tile.numRows * kRanks; at += kShrinkThreads) {
      const int row = at / kRanks, rank = at % kRanks;
      if (rank < numRanks) out[(size_t)row * p.step->shrinkStride + firstRank + rank] = sums[row][rank];
    }
    __syncthreads();
  }
}

/** One linear of rank 16, the common case, takes one pass. */
template <typename T> __device__ void shrinkOne(const ShrinkParams& p) { shrink<T, 1, 2, 4>(p); }
/** q, k and v of rank 16 do. */
template <typename T> __device__ void shrinkMany(const ShrinkParams& p) { shrink<T, 1, 6, 2>(p); }
template <typename T> __device__ void shrinkLong(const ShrinkParams& p) { shrink<T, 4, 6, 2>(p); }

/** Tensor cores would round float32 operands: plain sums, one warp a rank. */
__device__ void shrinkFloat(const ShrinkParams& p) {
  RowTile tile;
  if (!readTile(p.tiles, p.numTiles, tile)) return;
  const RankRows<float> ranks(p, tile.adapter);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int firstColumn = blockIdx.y * p.columnsPerSplit;
  const int endColumn = min(p.numIn, firstColumn + p.columnsPerSplit);
  float* out = p.scratch + ((size_t)blockIdx.y * p.capacityRows + tile.firstRow) * p.step->shrinkStride;
  for (int at = warp; at < tile.numRows * ranks.total(); at += kShrinkWarps) {
    const int row = at / ranks.total(), rank = at % ranks.total();
    const float* x = static_cast<const float*>(p.x) + (size_t)(tile.firstRow + row) * p.numIn;
    const float* a = ranks.row(rank);
    float sum = 0;
    for (int i = firstColumn + lane; i < endColumn; i += kWarp) sum += x[i] * a[i];
    sum = warpSum(sum);
    if (lane == 0) out[(size_t)row * p.step->shrinkStride + rank] = sum;
  }
}

#define LORIKEET_SHRINK(name, body)                                                                                    \
  extern "C" __global__ void __launch_bounds__(kShrinkThreads) name##_bf16(const __grid_constant__ ShrinkParams p) { body<bf16>(p); } \
  extern "C" __global__ void __launch_bounds__(kShrinkThreads) name##_f16(const __grid_constant__ ShrinkParams p) { body<f16>(p); }   \
  extern "C" __global__ void __launch_bounds__(kShrinkThreads) name##_f32(const __grid_constant__ ShrinkParams p) { shrinkFloat(p); }

LORIKEET_SHRINK(shrink_one, shrinkOne)
LORIKEET_SHRINK(shrink_many, shrinkMany)
LORIKEET_SHRINK(shrink_long, shrinkLong)

}  // namespace lorikeet
