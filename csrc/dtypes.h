// The dtypes that the ops read and write, as plain bits, since the extension is built without torch's headers and, on a
// CPU, without CUDA's.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#ifdef __CUDACC__
#include <cuda_fp16.h>
#define FGCLIP_HD __host__ __device__ inline
#else
#define FGCLIP_HD inline
#endif

namespace fgclip {

enum class Dtype { float32, bfloat16, float16, float64 };

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

FGCLIP_HD float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

FGCLIP_HD uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

FGCLIP_HD float to_float(float value) { return value; }

FGCLIP_HD float to_float(bfloat16 value) { return float_of_bits(static_cast<uint32_t>(value.bits) << 16); }

FGCLIP_HD float to_float(float16 value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  // The product moves the exponent's bias; it is exact for subnormals too.
  const float finite = float_of_bits(magnitude << 13) * 0x1p112f;
  const uint32_t special = 0x7f800000u | magnitude << 13;  // infinity and NaN
  return float_of_bits(sign | (magnitude >= 0x7c00u ? special : bits_of_float(finite)));
#endif
}

// Rounds to nearest, ties to even, as torch does.
FGCLIP_HD void from_float(float value, float* out) { *out = value; }

FGCLIP_HD void from_float(float value, bfloat16* out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : rounded);
}

FGCLIP_HD void from_float(float value, float16* out) {
#ifdef __CUDA_ARCH__
  out->bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t sign = (bits_of_float(value) >> 16) & 0x8000u, magnitude = bits_of_float(value) & 0x7fffffffu;
  uint32_t bits;
  if (magnitude >= 0x47800000u) {  // 65536 and above, infinity, NaN
    bits = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal in fp16: adding 1/2 rounds, and leaves the result in the lowest bits.
    bits = bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
  } else {
    bits = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | bits);
#endif
}

// Calls function with a value of dtype's C++ type; only the type matters.
template <typename Function>
void with_type(Dtype dtype, Function&& function) {
  switch (dtype) {
    case Dtype::float32: return function(float{});
    case Dtype::bfloat16: return function(bfloat16{});
    case Dtype::float16: return function(float16{});
    case Dtype::float64: throw std::invalid_argument("fgclip_fast: this op computes in fp32 and takes no fp64");
  }
}

}  // namespace fgclip
