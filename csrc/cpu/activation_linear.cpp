// Bound by memory, with one exponential an element.
#include "activation_linear.h"

#include <algorithm>
#include <vector>

#include "contrastive_loss.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FGCLIP_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FGCLIP_SIMD
#endif

namespace fgclip {
namespace {

constexpr int64_t max_strips = 128;      // of rows whose column sums belong together
constexpr int64_t rows_of_a_strip = 16;  // at least: fewer are not worth a sum of their own

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
  const int64_t strips = std::clamp<int64_t>(rows / rows_of_a_strip, 1, max_strips);
  std::vector<float> partial(strips * width);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < strips; ++s) {
      for (int64_t r = rows * s / strips; r < rows * (s + 1) / strips; ++r) {
        differentiate_row(static_cast<T*>(grad) + r * width, static_cast<const T*>(hidden) + r * width, bias, width,
                          static_cast<T*>(out) + r * width, partial.data() + s * width);
      }
    }
  });
  std::copy_n(partial.data(), width, grad_bias);
  for (int64_t s = 1; s < strips; ++s) {
    for (int c = 0; c < width; ++c) grad_bias[c] += partial[s * width + c];
  }
}

}  // namespace fgclip
