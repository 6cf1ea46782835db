// Bias and activation on a CPU. Bound by memory, with one or two exponentials per element.
#include "activation_linear.h"

#include <cmath>

#include "cpu/exp2.h"
#include "cpu/row_strips.h"
#include "cpu/simd.h"

namespace fgclip {
namespace {

// An activation is x * gate(x); slope is its derivative.
struct Gate {
  float gate, slope;
};

// gate = sigmoid(1.702 x)
struct QuickGelu {
  static Gate at(float x) {
    const float gate = 1.0f / (1.0f + exp2_fast(-1.702f * log2_e * x));
    return {gate, gate + 1.702f * x * gate * (1.0f - gate)};
  }
};

// gate = (1 + erf(x / sqrt 2)) / 2, the normal distribution function. erf by formula 7.1.26 of Abramowitz and Stegun,
// Handbook of Mathematical Functions: absolute error below 1.5e-7. No branch and no call, so that loops vectorise.
struct Gelu {
  static Gate at(float x) {
    const float z = std::fabs(x) * 0.70710678f, density = exp2_fast(-0.5f * log2_e * x * x);
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float tail = 0.5f * p * t * density;  // of the distribution, beyond |x|
    const float gate = x < 0.0f ? tail : 1.0f - tail;
    return {gate, gate + x * 0.39894228f * density};
  }
};

template <typename Activation, typename T>
FGCLIP_SIMD void activate_row(const T* hidden, const float* bias, int width, T* out) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    const float x = to_float(hidden[c]) + bias[c];
    from_float(x * Activation::at(x).gate, out + c);
  }
}

template <typename Activation, typename T>
FGCLIP_SIMD void differentiate_row(T* grad, const T* hidden, const float* bias, int width, T* out, float* grad_bias) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    const float x = to_float(hidden[c]) + bias[c];
    const Gate here = Activation::at(x);
    const float own = to_float(grad[c]) * here.slope;
    from_float(x * here.gate, out + c);
    from_float(own, grad + c);
    grad_bias[c] += own;
  }
}

// Calls function with a value of the activation's type; the value itself means nothing.
template <typename Function>
void with_activation(bool quick, Function&& function) {
  quick ? function(QuickGelu{}) : function(Gelu{});
}

}  // namespace

void activation_forward_cpu(const void* hidden, const float* bias, void* out, int64_t rows, int width, bool quick,
                            Dtype dtype) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    with_activation(quick, [&](auto activation) {
#pragma omp parallel for schedule(static)
      for (int64_t r = 0; r < rows; ++r) {
        activate_row<decltype(activation)>(static_cast<const T*>(hidden) + r * width, bias, width,
                                           static_cast<T*>(out) + r * width);
      }
    });
  });
}

void activation_backward_cpu(void* grad, const void* hidden, const float* bias, void* out, float* grad_bias,
                             int64_t rows, int width, bool quick, Dtype dtype) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    with_activation(quick, [&](auto activation) {
      sum_over_rows(rows, width, grad_bias, [&](int64_t first, int64_t last, float* sum) {
        for (int64_t r = first; r < last; ++r) {
          differentiate_row<decltype(activation)>(static_cast<T*>(grad) + r * width,
                                                  static_cast<const T*>(hidden) + r * width, bias, width,
                                                  static_cast<T*>(out) + r * width, sum);
        }
      });
    });
  });
}

}  // namespace fgclip
