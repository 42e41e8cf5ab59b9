// MLP activations (GLU variants: arXiv:2002.05202) and the element-wise scaling of a linear's input.
#include "common.cuh"
#include "step.cuh"

namespace lorikeet {

enum Activation : int32_t { kSilu = 0, kGelu = 1, kGeluTanh = 2, kRelu = 3 };

__device__ float activate(int activation, float x) {
  switch (activation) {
    case kSilu: return x / (1 + __expf(-x));
    case kGelu: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case kGeluTanh: return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default: return fmaxf(x, 0.f);
  }
}

struct ActivationParams {
  const int32_t* numRows;
  const void* in;  // [rows, gate | up] or [rows, up]
  void* out;       // [rows, width]
  int32_t width;
  int32_t isGated;
  int32_t activation;
};

template <typename T> __device__ void activation(const ActivationParams& p) {
  const int row = blockIdx.y;
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * kLane;
  if (row >= *p.numRows || column >= p.width) return;
  const T* in = static_cast<const T*>(p.in) + (size_t)row * p.width * (p.isGated ? 2 : 1) + column;
  float x[kLane], up[kLane];
  load8(in, x);
  if (p.isGated) load8(in + p.width, up);
#pragma unroll
  for (int i = 0; i < kLane; i++) x[i] = activate(p.activation, x[i]) * (p.isGated ? up[i] : 1.f);
  store8(static_cast<T*>(p.out) + (size_t)row * p.width + column, x);
}

LORIKEET_KERNEL(activation, ActivationParams, __launch_bounds__(128), activation)

struct InputScaleParams {
  const int32_t* numRows;
  const AdapterRecord* const* adapters;
  const void* in;  // [rows, width]
  void* out;
  int32_t width;
  int32_t site;
};

template <typename T> __device__ void inputScale(const InputScaleParams& p) {
  const int row = blockIdx.y;
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * kLane;
  if (row >= *p.numRows || column >= p.width) return;
  const AdapterRecord* adapter = p.adapters[row];
  const float* scale = adapter == nullptr ? nullptr : siteOf(adapter, p.site).inScale;
  const size_t start = (size_t)row * p.width + column;
  float x[kLane];
  load8(static_cast<const T*>(p.in) + start, x);
  if (scale != nullptr) {
#pragma unroll
    for (int i = 0; i < kLane; i++) x[i] *= scale[column + i];
  }
  store8(static_cast<T*>(p.out) + start, x);
}

LORIKEET_KERNEL(input_scale, InputScaleParams, __launch_bounds__(128), inputScale)

}  // namespace lorikeet
