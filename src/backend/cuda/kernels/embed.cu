// Token rows become float32 hidden states: table row (the adapter's where it has one), scale, learned position.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

struct EmbedParams {
  const StepHeader* step;
  const int32_t* tokenIds;
  const int32_t* positions;
  const AdapterRecord* const* adapters;  // [numTokens]
  const void* table;                     // [vocab, hidden]
  const void* positionTable;             // [maxPositions, hidden] or null
  float* hidden;
  int32_t hiddenSize;
  float embedScale;
};

/** Index of `id` in ascending `ids`, or -1. */
__device__ int findRow(const int32_t* ids, int count, int id) {
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (ids[middle] < id) low = middle + 1;
    else high = middle;
  }
  return low < count && ids[low] == id ? low : -1;
}

template <typename T>
__device__ float tableValue(const T* base, const TableEdit* edit, int ownRow, int id, int i, int width) {
  if (edit == nullptr) return toFloat(base[(size_t)id * width + i]);
  float z;
  if (ownRow >= 0) z = toFloat(static_cast<const T*>(edit->rows)[(size_t)ownRow * width + i]);
  else z = toFloat((edit->replace != nullptr ? static_cast<const T*>(edit->replace) : base)[(size_t)id * width + i]);
  if (edit->mul != nullptr) z *= edit->mul[i];
  if (edit->add != nullptr) z += edit->add[i];
  const T* a = static_cast<const T*>(edit->a) + (size_t)id * edit->rank;
  const T* b = static_cast<const T*>(edit->b) + i;
  for (int r = 0; r < edit->rank; r++) z += toFloat(a[r]) * toFloat(b[(size_t)r * width]);
  return z;
}

template <typename T> __device__ void embed(const EmbedParams& p) {
  const int row = blockIdx.x;
  if (row >= p.step->numTokens) return;
  const int width = p.hiddenSize;
  const int id = p.tokenIds[row];
  const int position = p.positions[row];
  const AdapterRecord* adapter = p.adapters[row];
  const TableEdit* edit = adapter == nullptr ? nullptr : &adapter->tables[0];
  const TableEdit* positionEdit = adapter == nullptr ? nullptr : &adapter->tables[1];
  const int ownRow = edit == nullptr || id < 0 ? -1 : findRow(edit->rowIds, edit->numRows, id);
  const int ownPosition = positionEdit == nullptr ? -1 : findRow(positionEdit->rowIds, positionEdit->numRows, position);
#pragma unroll 4
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float h;
    if (id < 0) h = adapter->softPrompt[(size_t)(-1 - id) * width + i];
    else h = tableValue(static_cast<const T*>(p.table), edit, ownRow, id, i, width) * p.embedScale;
    if (p.positionTable != nullptr)
      h += tableValue(static_cast<const T*>(p.positionTable), positionEdit, ownPosition, position, i, width);
    p.hidden[(size_t)row * width + i] = h;
  }
}

LORIKEET_KERNEL(embed, EmbedParams, __launch_bounds__(256), embed)

}  // namespace lorikeet
