// Hard-negative loss on a CPU. Bound by memory: the forward pass reads each text once, the backward pass reads it once
// and writes its gradient once. One thread handles a region and all its texts, and sums over regions run in their
// order: the same bits on any number of threads.
#include "hard_negative_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/huge_pages.h"
#include "cpu/simd.h"

namespace fgclip {
namespace {

// Partial sums of a row. The compiler may not reorder sums of floats, so vectors need sums of their own.
constexpr int lanes = 32;

inline double to_statistics(double value) { return value; }
template <typename T>
inline float to_statistics(T value) {
  return to_float(value);
}
inline void from_statistics(double value, double* out) { *out = value; }
template <typename T>
inline void from_statistics(float value, T* out) {
  from_float(value, out);
}

template <typename S>
inline S sum_lanes(S* lane) {
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  return lane[0];
}

template <typename S>
inline S inverse_length(S squares) {
  return squares > S(1e-24) ? 1 / std::sqrt(squares) : 0;  // as reference.unit
}

// Dot product of a text with the unit region, and of the text with itself. Every text takes the same steps, so that
// equal texts tie.
template <typename T, typename S>
FGCLIP_SIMD void compare(const S* region, const T* text, int64_t D, S* dot, S* squares) {
  S dots[lanes] = {}, own[lanes] = {};
  int64_t d = 0;
  for (; d + lanes <= D; d += lanes)
    for (int l = 0; l < lanes; ++l) {
      const S value = to_statistics(text[d + l]);
      dots[l] += region[d + l] * value;
      own[l] += value * value;
    }
  for (int l = 0; d < D; ++d, ++l) {
    const S value = to_statistics(text[d]);
    dots[l] += region[d] * value;
    own[l] += value * value;
  }
  *dot = sum_lanes(dots);
  *squares = sum_lanes(own);
}

// grad_text = toward * region + along * text; grad_region += toward * text.
template <typename T, typename S>
FGCLIP_SIMD void pull(S toward, S along, const S* region, const T* text, int64_t D, S* grad_region, T* grad_text) {
  for (int64_t d = 0; d < D; ++d) {
    const S value = to_statistics(text[d]);
    grad_region[d] += toward * value;
    from_statistics(toward * region[d] + along * value, grad_text + d);
  }
}

template <typename T, typename S>
FGCLIP_SIMD S unit_row(const T* row, int64_t D, S* unit) {
  for (int64_t d = 0; d < D; ++d) unit[d] = to_statistics(row[d]);
  S dot, squares;
  compare(unit, unit, D, &dot, &squares);
  const S inverse = inverse_length(squares);
  for (int64_t d = 0; d < D; ++d) unit[d] *= inverse;
  return inverse;
}

template <typename T>
struct Problem {
  using S = Statistics<T>;
  const T *regions, *texts;
  const int64_t* offsets;
  S scale;
  int64_t R, D;
  S *losses, *similarity, *text_inverse;

  Problem(const HardNegativeInputs& in, const HardNegativeSaved& saved)
      : regions(static_cast<const T*>(in.regions)), texts(static_cast<const T*>(in.texts)), offsets(in.offsets),
        scale(*static_cast<const S*>(in.scale)), R(in.R), D(in.D), losses(static_cast<S*>(saved.losses)),
        similarity(static_cast<S*>(saved.similarity)), text_inverse(static_cast<S*>(saved.text_inverse)) {}

  bool chooses(int64_t r) const { return offsets[r + 1] - offsets[r] > 1; }

  S choosing() const {
    int64_t regions_with_negative = 0;
    for (int64_t r = 0; r < R; ++r) regions_with_negative += chooses(r);
    return static_cast<S>(std::max<int64_t>(regions_with_negative, 1));
  }
};

// Writes the saved values of region r and its texts, and the region's rank.
template <typename T, typename S>
void forward_group(const Problem<T>& p, int64_t r, S* unit, int64_t* rank) {
  const int64_t first = p.offsets[r], last = p.offsets[r + 1];
  unit_row(p.regions + r * p.D, p.D, unit);
  S maximum = -std::numeric_limits<S>::infinity(), total = 0;
  int64_t beaten_by = 0;
  for (int64_t m = first; m < last; ++m) {
    S dot, squares;
    compare(unit, p.texts + m * p.D, p.D, &dot, &squares);
    p.text_inverse[m] = inverse_length(squares);
    p.similarity[m] = dot * p.text_inverse[m];
    beaten_by += m > first && !(p.similarity[m] <= p.similarity[first]);  // not >, since NaN must not rank best
    maximum = std::max(maximum, p.scale * p.similarity[m]);
  }
  for (int64_t m = first; m < last; ++m) total += std::exp(p.scale * p.similarity[m] - maximum);
  rank[r] = beaten_by;
  // The order of the terms keeps the digits of a small loss, which the log-sum-exp at scale 100 has rounded away.
  p.losses[r] = p.chooses(r) ? maximum - p.scale * p.similarity[first] + std::log(total) : 0;
}

template <typename T>
void forward(const Problem<T>& p, Statistics<T>* loss, int64_t* rank) {
#pragma omp parallel
  {
    std::vector<Statistics<T>> unit(p.D);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < p.R; ++r) forward_group(p, r, unit.data(), rank);
  }
  double sum = 0;
  for (int64_t r = 0; r < p.R; ++r) sum += p.losses[r];
  *loss = static_cast<Statistics<T>>(sum) / p.choosing();
}

// Writes the gradients of region r and its texts; returns its part of the scale's gradient.
template <typename T, typename S>
S backward_group(const Problem<T>& p, int64_t r, S grad_loss, S* unit, S* grad_unit, T* grad_regions, T* grad_texts) {
  const int64_t first = p.offsets[r], last = p.offsets[r + 1], D = p.D;
  const S inverse = unit_row(p.regions + r * D, D, unit);
  std::fill(grad_unit, grad_unit + D, S(0));
  S grad_scale = 0;
  for (int64_t m = first; m < last; ++m) {
    const S probability = std::exp(p.scale * (p.similarity[m] - p.similarity[first]) - p.losses[r]);
    const S grad_logit = p.chooses(r) ? grad_loss * (probability - (m == first)) : 0;
    const S toward = p.scale * grad_logit * p.text_inverse[m];
    const S along = -toward * p.similarity[m] * p.text_inverse[m];  // removes the radial component
    pull(toward, along, unit, p.texts + m * D, D, grad_unit, grad_texts + m * D);
    grad_scale += grad_logit * p.similarity[m];
  }
  for (int64_t d = 0; d < D; ++d)
    from_statistics(inverse * (grad_unit[d] - p.scale * grad_scale * unit[d]), grad_regions + r * D + d);
  return grad_scale;
}

template <typename T>
void backward(const Problem<T>& p, Statistics<T> grad_loss, T* grad_regions, T* grad_texts, Statistics<T>* grad_scale) {
  using S = Statistics<T>;
  const S grad_mean = grad_loss / p.choosing();
  std::vector<S> grad_scales(p.R);
  advise_huge_pages(grad_texts, p.offsets[p.R] * p.D * static_cast<int64_t>(sizeof(T)));
#pragma omp parallel
  {
    std::vector<S> unit(p.D), grad_unit(p.D);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < p.R; ++r)
      grad_scales[r] = backward_group(p, r, grad_mean, unit.data(), grad_unit.data(), grad_regions, grad_texts);
  }
  double sum = 0;
  for (const auto one : grad_scales) sum += one;
  *grad_scale = static_cast<S>(sum);
}

template <typename Function>
void with_type_or_double(Dtype dtype, Function&& function) {
  dtype == Dtype::float64 ? function(double{}) : with_type(dtype, function);
}

}  // namespace

void hard_negative_loss_forward_cpu(const HardNegativeInputs& inputs, const HardNegativeSaved& saved, void* loss,
                                    int64_t* rank, Dtype dtype) {
  with_type_or_double(dtype, [&](auto type) {
    using T = decltype(type);
    forward(Problem<T>(inputs, saved), static_cast<Statistics<T>*>(loss), rank);
  });
}

void hard_negative_loss_backward_cpu(const void* grad_loss, const HardNegativeInputs& inputs,
                                     const HardNegativeSaved& saved, void* grad_regions, void* grad_texts,
                                     void* grad_scale, Dtype dtype) {
  with_type_or_double(dtype, [&](auto type) {
    using T = decltype(type);
    using S = Statistics<T>;
    backward(Problem<T>(inputs, saved), *static_cast<const S*>(grad_loss), static_cast<T*>(grad_regions),
             static_cast<T*>(grad_texts), static_cast<S*>(grad_scale));
  });
}

}  // namespace fgclip
