// A power of 2 that vectorises: std::exp2 is a call.
#pragma once

#include "dtypes.h"

namespace fgclip {

constexpr float log2_e = 1.44269504088896341f;

// 2^x with a relative error below 1e-7; 0 for x < -126, 2^127 for x > 127. Without branches and calls, so that loops
// vectorise.
inline float exp2_fast(float x) {
  const float inside = x < -126.0f ? -126.0f : x > 127.0f ? 127.0f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const float shifted = inside + 12582912.0f;
  const float f = inside - (shifted - 12582912.0f);
  // Polynomial of 2^f for f in [-1/2, 1/2].
  float p = 1.5345775e-4f;
  p = p * f + 1.3399931e-3f;
  p = p * f + 9.618489e-3f;
  p = p * f + 5.5503286e-2f;
  p = p * f + 2.4022646e-1f;
  p = p * f + 6.931472e-1f;
  p = p * f + 1.0f;
  const float power = float_of_bits((bits_of_float(shifted) - 0x4B400000u + 127u) << 23);
  return x < -126.0f ? 0.0f : p * power;  // NaN stays NaN
}

}  // namespace fgclip
