// Types and small device functions every kernel uses. Elements are bf16, fp16 or fp32; every sum is float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

namespace lorikeet {

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;

/** Columns a thread owns where rows are wide: 16 bytes of a 16-bit type, the widest load there is. */
constexpr int kLane = 8;

__device__ __forceinline__ float toFloat(float x) { return x; }
__device__ __forceinline__ float toFloat(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float toFloat(f16 x) { return __half2float(x); }

template <typename T> __device__ __forceinline__ T fromFloat(float x);
template <> __device__ __forceinline__ float fromFloat<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 fromFloat<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 fromFloat<f16>(float x) { return __float2half_rn(x); }

__device__ __forceinline__ float2 unpack2(uint32_t bits, bf16) {
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
__device__ __forceinline__ float2 unpack2(uint32_t bits, f16) {
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}
__device__ __forceinline__ uint32_t pack2(float2 x, bf16) {
  const __nv_bfloat162 pair = __float22bfloat162_rn(x);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ uint32_t pack2(float2 x, f16) {
  const __half2 pair = __float22half2_rn(x);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/** Eight neighbours as the memory holds them, not yet converted, so that many loads can be in flight before the first use. */
template <typename T> struct Raw8 { uint4 bits; };
template <> struct Raw8<float> { float4 low, high; };

template <typename T> __device__ __forceinline__ Raw8<T> loadRaw(const T* from) {
  return {__ldg(reinterpret_cast<const uint4*>(from))};
}
template <> __device__ __forceinline__ Raw8<float> loadRaw<float>(const float* from) {
  return {__ldg(reinterpret_cast<const float4*>(from)), __ldg(reinterpret_cast<const float4*>(from) + 1)};
}

template <typename T> __device__ __forceinline__ void expandRaw(const Raw8<T>& raw, float (&out)[kLane]) {
  const uint32_t words[4] = {raw.bits.x, raw.bits.y, raw.bits.z, raw.bits.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 pair = unpack2(words[i], T{});
    out[2 * i] = pair.x;
    out[2 * i + 1] = pair.y;
  }
}
template <> __device__ __forceinline__ void expandRaw<float>(const Raw8<float>& raw, float (&out)[kLane]) {
  out[0] = raw.low.x; out[1] = raw.low.y; out[2] = raw.low.z; out[3] = raw.low.w;
  out[4] = raw.high.x; out[5] = raw.high.y; out[6] = raw.high.z; out[7] = raw.high.w;
}

/** Reads through the ordinary path: for memory that this kernel, or one beside it, also writes. */
template <typename T> __device__ __forceinline__ void load8(const T* from, float (&out)[kLane]) {
  Raw8<T> raw;
  raw.bits = *reinterpret_cast<const uint4*>(from);
  expandRaw<T>(raw, out);
}
template <> __device__ __forceinline__ void load8<float>(const float* from, float (&out)[kLane]) {
  Raw8<float> raw;
  raw.low = reinterpret_cast<const float4*>(from)[0];
  raw.high = reinterpret_cast<const float4*>(from)[1];
  expandRaw<float>(raw, out);
}

template <typename T> __device__ __forceinline__ void store8(T* to, const float (&x)[kLane]) {
  uint4 bits;
  bits.x = pack2({x[0], x[1]}, T{});
  bits.y = pack2({x[2], x[3]}, T{});
  bits.z = pack2({x[4], x[5]}, T{});
  bits.w = pack2({x[6], x[7]}, T{});
  *reinterpret_cast<uint4*>(to) = bits;
}
template <> __device__ __forceinline__ void store8<float>(float* to, const float (&x)[kLane]) {
  reinterpret_cast<float4*>(to)[0] = {x[0], x[1], x[2], x[3]};
  reinterpret_cast<float4*>(to)[1] = {x[4], x[5], x[6], x[7]};
}

__device__ __forceinline__ float warpSum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kFullMask, x, step);
  return x;
}

/** Sum over the block, in every thread. `scratch` holds one float a warp. */
__device__ __forceinline__ float blockSum(float x, float* scratch) {
  const int warp = threadIdx.x / kWarp;
  x = warpSum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[warp] = x;
  __syncthreads();
  const int lane = threadIdx.x % kWarp;
  return warpSum(lane < (int)blockDim.x / kWarp ? scratch[lane] : 0.f);
}

/** Defines one kernel for each element type: `name_bf16`, `name_f16`, `name_f32`. */
#define LORIKEET_KERNEL(name, Params, bounds, body)                                                                    \
  extern "C" __global__ void bounds name##_bf16(const __grid_constant__ Params p) { body<lorikeet::bf16>(p); }         \
  extern "C" __global__ void bounds name##_f16(const __grid_constant__ Params p) { body<lorikeet::f16>(p); }           \
  extern "C" __global__ void bounds name##_f32(const __grid_constant__ Params p) { body<float>(p); }

}  // namespace lorikeet
