// Bias and quick_gelu on a CPU. Bound by memory, with one exponential per element.
#include "activation_linear.h"

#include "cpu/exp2.h"
#include "cpu/row_strips.h"
#include "cpu/simd.h"

namespace fgclip {
namespace {

// sigmoid(1.702 x)
inline float gate(float x) { return 1.0f / (1.0f + exp2_fast(-1.702f * log2_e * x)); }

template <typename T>
FGCLIP_SIMD void activate_row(const T* hidden, const float* bias, int width, T* out) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    const float x = to_float(hidden[c]) + bias[c];
    from_float(x * gate(x), out + c);
  }
}

template <typename T>
FGCLIP_SIMD void differentiate_row(T* grad, const T* hidden, const float* bias, int width, T* out, float* grad_bias) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    const float x = to_float(hidden[c]) + bias[c], s = gate(x);
    const float own = to_float(grad[c]) * (s + 1.702f * x * s * (1.0f - s));
    from_float(x * s, out + c);
    from_float(own, grad + c);
    grad_bias[c] += own;
  }
}

}  // namespace

void activation_forward_cpu(const void* hidden, const float* bias, void* out, int64_t rows, int width, Dtype dtype) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
      activate_row(static_cast<const T*>(hidden) + r * width, bias, width, static_cast<T*>(out) + r * width);
    }
  });
}

void activation_backward_cpu(void* grad, const void* hidden, const float* bias, void* out, float* grad_bias,
                             int64_t rows, int width, Dtype dtype) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    sum_over_rows(rows, width, grad_bias, [&](int64_t first, int64_t last, float* sum) {
      for (int64_t r = first; r < last; ++r) {
        differentiate_row(static_cast<T*>(grad) + r * width, static_cast<const T*>(hidden) + r * width, bias, width,
                          static_cast<T*>(out) + r * width, sum);
      }
    });
  });
}

}  // namespace fgclip
