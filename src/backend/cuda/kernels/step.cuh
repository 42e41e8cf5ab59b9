// What a step's kernels read beside activations: counts, and the adapters of the step's rows. Mirrors step-inputs.ts and
// adapter-record.ts; every pointer of an adapter leads into its own slab.
#pragma once

#include <cstdint>

namespace lorikeet {

/** Counts of this step. They lie in device memory, so that a graph recorded once serves every step of its size. */
struct StepHeader {
  int32_t numTokens;
  int32_t numLogitRows;
  int32_t numTiles;
  int32_t numLogitTiles;
  /** Ranks a row may have in the shrink's scratch. */
  int32_t shrinkStride;
  /** Blocks a row of the block tables may have. */
  int32_t tableStride;
  int32_t reserved[2];
};

/** A linear of an adapter: z = z · mul + add + B (A x), scale and output scale already in B. Null or 0 = absent. */
struct SiteEdit {
  const void* a;       // [rank, in]
  const void* b;       // [rank, ldb]: a thread reads eight outputs of one rank at once, and no rank is padded
  const float* mul;    // [out]
  const float* add;    // [out]
  const float* inScale;  // [in]
  int32_t rank;
  int32_t ldb;
};

struct NormEdit {
  const float* weight;  // null = the base norm
  const float* bias;
};

/** An embedding table's own rows and updates. */
struct TableEdit {
  const int32_t* rowIds;  // [numRows], ascending
  const void* rows;       // [numRows, hidden]
  const void* replace;    // [vocab, hidden]
  const void* a;          // [vocab, rank]: the column of a token, contiguous
  const void* b;          // [rank, hidden]
  const float* mul;       // [hidden]
  const float* add;       // [hidden]
  int32_t numRows;
  int32_t rank;
};

/** Its linears' edits follow it in memory: a pointer to them would be one more read to wait for in every kernel. */
struct AdapterRecord {
  const NormEdit* norms;
  TableEdit tables[2];       // embed, positions
  const int32_t* headRowIds;  // [numHeadRows]
  const void* headRows;      // [numHeadRows, hidden]
  const float* softPrompt;   // [numVirtual, hidden]
  const void* prefixKeys;    // [layers, numVirtual, width]
  const void* prefixValues;
  int32_t numHeadRows;
  int32_t numVirtual;
};

__device__ __forceinline__ const SiteEdit& siteOf(const AdapterRecord* adapter, int site) {
  return reinterpret_cast<const SiteEdit*>(adapter + 1)[site];
}

/** Consecutive rows of one adapter, at most as many as the kernel's tile holds. */
struct RowTile {
  const AdapterRecord* adapter;
  int32_t firstRow;
  int32_t numRows;
};

/**
 * The tile of this block, read beside the count that says whether there is one: what lies behind the last tile is memory of the
 * same step. False = no such tile.
 */
__device__ __forceinline__ bool readTile(const RowTile* tiles, const int32_t* numTiles, RowTile& tile) {
  tile = tiles[blockIdx.x];
  return blockIdx.x < *numTiles;
}

}  // namespace lorikeet
