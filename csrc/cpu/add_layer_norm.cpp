// Bound by memory: each pass reads every row once and writes it once; what is in between stays in the first-level
// cache.
#include "add_layer_norm.h"

#include <cmath>
#include <vector>

#include "cpu/row_strips.h"
#include "cpu/simd.h"

namespace fgclip {
namespace {

template <typename T>
FGCLIP_SIMD void load(const T* from, int width, float* to) {
#pragma omp simd
  for (int c = 0; c < width; ++c) to[c] = to_float(from[c]);
}

template <typename T>
FGCLIP_SIMD void store(const float* from, int width, T* to) {
#pragma omp simd
  for (int c = 0; c < width; ++c) from_float(from[c], to + c);
}

// total = residual + update + update_bias, rounded to the stream's dtype; row holds the rounded values in fp32.
template <typename T, typename U>
FGCLIP_SIMD void add_row(const T* residual, const U* update, const float* update_bias, int width, T* total,
                         float* row) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    T rounded;
    from_float(to_float(residual[c]) + (to_float(update[c]) + update_bias[c]), &rounded);
    total[c] = rounded;
    row[c] = to_float(rounded);
  }
}

FGCLIP_SIMD float sum_of(const float* row, int width) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int c = 0; c < width; ++c) sum += row[c];
  return sum;
}

FGCLIP_SIMD float squares_around(const float* row, int width, float mean) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int c = 0; c < width; ++c) sum += (row[c] - mean) * (row[c] - mean);
  return sum;
}

template <typename U>
FGCLIP_SIMD void norm_row(const float* row, int width, float mean, float inverse, const float* weight,
                          const float* bias, U* normed) {
#pragma omp simd
  for (int c = 0; c < width; ++c) from_float((row[c] - mean) * inverse * weight[c] + bias[c], normed + c);
}

struct Moments {
  float along, across;  // of the component along unit, and of the constant one
};

// The row becomes its normalised values without weight and bias, grad stays; returns the means that LayerNorm's
// derivative takes off: of grad * weight * unit, and of grad * weight.
FGCLIP_SIMD Moments to_unit(float* row, const float* grad, int width, float mean, float inverse, const float* weight) {
  float along = 0.0f, across = 0.0f;
#pragma omp simd reduction(+ : along, across)
  for (int c = 0; c < width; ++c) {
    row[c] = (row[c] - mean) * inverse;
    const float weighted = grad[c] * weight[c];
    along += weighted * row[c];
    across += weighted;
  }
  return {along / width, across / width};
}

// Turn grad, of the normed row, into the gradient of the row, and add the row to the three column sums.
FGCLIP_SIMD void differentiate_row(const float* unit, float* grad, const float* grad_total, int width, float inverse,
                                   Moments moments, const float* weight, float* grad_weight, float* grad_bias,
                                   float* grad_update_bias) {
#pragma omp simd
  for (int c = 0; c < width; ++c) {
    const float own = grad[c];
    const float whole = inverse * (own * weight[c] - moments.across - unit[c] * moments.along) + grad_total[c];
    grad_weight[c] += own * unit[c];
    grad_bias[c] += own;
    grad_update_bias[c] += whole;
    grad[c] = whole;
  }
}

template <typename T>
T* row_of(void* rows, int64_t r, int width) {
  return static_cast<T*>(rows) + r * width;
}

template <typename T>
const T* row_of(const void* rows, int64_t r, int width) {
  return static_cast<const T*>(rows) + r * width;
}

template <typename T, typename U, typename N>
void forward(const AddLayerNormForward& call) {
  const int width = call.width;
  const std::vector<float> no_bias(width, 0.0f);
  const float* const update_bias = call.update_bias ? call.update_bias : no_bias.data();
#pragma omp parallel
  {
    std::vector<float> row(width);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < call.rows; ++r) {
      const T* const residual = row_of<T>(call.residual, r, width);
      if (call.update) {
        add_row(residual, row_of<U>(call.update, r, width), update_bias, width, row_of<T>(call.total, r, width),
                row.data());
      } else {
        load(residual, width, row.data());
      }
      const float mean = sum_of(row.data(), width) / width;
      const float inverse = 1.0f / std::sqrt(squares_around(row.data(), width, mean) / width + call.eps);
      norm_row(row.data(), width, mean, inverse, call.weight, call.bias, row_of<N>(call.normed, r, width));
      call.statistics[r] = mean;
      call.statistics[call.rows + r] = inverse;
    }
  }
}

// Gradients of rows [first, last); their column sums are added to columns [3, width].
template <typename T, typename N, typename O>
void backward_strip(const AddLayerNormBackward& call, int64_t first, int64_t last, float* columns) {
  const int width = call.width;
  std::vector<float> row(width), grad(width), grad_total(width, 0.0f);
  for (int64_t r = first; r < last; ++r) {
    load(row_of<T>(call.total, r, width), width, row.data());
    load(row_of<N>(call.grad_normed, r, width), width, grad.data());
    if (call.grad_total) load(row_of<T>(call.grad_total, r, width), width, grad_total.data());
    const float mean = call.statistics[r], inverse = call.statistics[call.rows + r];
    if (call.normed) {
      norm_row(row.data(), width, mean, inverse, call.weight, call.bias, row_of<N>(call.normed, r, width));
    }
    const Moments moments = to_unit(row.data(), grad.data(), width, mean, inverse, call.weight);
    differentiate_row(row.data(), grad.data(), grad_total.data(), width, inverse, moments, call.weight, columns,
                      columns + width, columns + 2 * width);
    store(grad.data(), width, row_of<T>(call.grad_residual, r, width));
    if (call.grad_other) store(grad.data(), width, row_of<O>(call.grad_other, r, width));
  }
}

template <typename T, typename N, typename O>
void backward(const AddLayerNormBackward& call) {
  sum_over_rows(call.rows, 3 * call.width, call.columns, [&](int64_t first, int64_t last, float* columns) {
    backward_strip<T, N, O>(call, first, last, columns);
  });
}

}  // namespace

void add_layer_norm_forward_cpu(const AddLayerNormForward& call) {
  with_type(call.stream, [&](auto stream) {
    with_type(call.update_dtype, [&](auto update) {
      with_type(call.normed_dtype,
                [&](auto normed) { forward<decltype(stream), decltype(update), decltype(normed)>(call); });
    });
  });
}

void add_layer_norm_backward_cpu(const AddLayerNormBackward& call) {
  with_type(call.stream, [&](auto stream) {
    with_type(call.normed_dtype, [&](auto normed) {
      with_type(call.other_dtype,
                [&](auto other) { backward<decltype(stream), decltype(normed), decltype(other)>(call); });
    });
  });
}

}  // namespace fgclip
