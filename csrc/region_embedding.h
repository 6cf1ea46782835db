// Region embedding: RoIAlign with a 1x1 output (sampling_ratio=-1, aligned=True) over tokens [B, H * W, C].
// It is separable: a box weighs the token of cell (y, x) by weight_y[y] * weight_x[x].
#pragma once

#include <math.h>

#include "dtypes.h"

namespace fgclip {

struct RegionShape {
  int64_t B, R;
  int H, W, C;
  int64_t image_stride, token_stride;  // of the input tokens, in elements; channels are adjacent
};

// One axis of a box, in cells. Its ceil(length) samples are evenly spaced and touch only cells [first, last).
struct Axis {
  float start, length, samples;
  int first, last;

  FGCLIP_HD bool covers(int cell) const { return first <= cell && cell < last; }
};

// A position in cells. The product is rounded, since a fused multiply-add would change the number of samples of some
// boxes.
FGCLIP_HD float in_cells(float fraction, int size) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(fraction, static_cast<float>(size));
#else
  const volatile float cells = fraction * static_cast<float>(size);
  return cells;
#endif
}

FGCLIP_HD float sample_at(const Axis& axis, float i) { return axis.start + (i + 0.5f) * axis.length / axis.samples; }

// The axis between two fractions of the image, computed in torchvision's order of operations. An empty, inverted or
// non-finite axis touches no cell.
FGCLIP_HD Axis axis_of(float from, float to, int size) {
  Axis axis{in_cells(from, size) - 0.5f, 0.0f, 0.0f, 0, 0};
  axis.length = in_cells(to, size) - 0.5f - axis.start;
  if (!(axis.length > 0.0f) || !(axis.length < 1e30f) || !(axis.start > -1e30f)) return axis;
  axis.samples = ceilf(axis.length);
  const float low = sample_at(axis, 0.0f), high = sample_at(axis, axis.samples - 1.0f);
  if (low > size || high < -1.0f) return axis;
  axis.first = static_cast<int>(fminf(fmaxf(low, 0.0f), size - 1.0f));
  axis.last = static_cast<int>(fminf(fmaxf(high, 0.0f) + 2.0f, static_cast<float>(size)));
  return axis;
}

// Mean bilinear weight of one cell over all samples. Only samples less than one cell away have a weight there; they are
// more than half a cell apart, so there are at most five. A sample up to one cell outside the image counts for the
// outermost cell; one further out has weight 0, yet counts in the mean.
FGCLIP_HD float cell_weight(const Axis& axis, int size, int cell) {
  const float guess = floorf((cell - 1.0f - axis.start) * axis.samples / axis.length - 1.5f);
  float sum = 0.0f, i = fmaxf(guess, 0.0f);
  for (int tries = 0; tries < 8 && i < axis.samples; ++tries, ++i) {
    const float at = sample_at(axis, i);
    if (at < cell - 1.0f) continue;
    if (at > cell + 1.0f) break;
    sum += 1.0f - fminf(fabsf(fminf(fmaxf(at, 0.0f), size - 1.0f) - cell), 1.0f);
  }
  return sum / axis.samples;
}

// tokens (strided as the shape says), boxes [R, 4] fractions xyxy, image_index [R] in [0, B) -> out [R, C].
void region_embedding_forward_cpu(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                  Dtype dtype, const RegionShape& shape);

// grad_out [R, C] -> grad_tokens [B, H * W, C], contiguous.
void region_embedding_backward_cpu(const void* grad_out, const float* boxes, const int64_t* image_index,
                                   void* grad_tokens, Dtype dtype, const RegionShape& shape);

#ifdef FGCLIP_CUDA
// The same on a CUDA device and stream; the caller's current device is restored.
void region_embedding_forward_cuda(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                   Dtype dtype, const RegionShape& shape, int device, void* stream);

// Scratch: begin [B + 1], order [R], weights [R, H + W].
void region_embedding_backward_cuda(const void* grad_out, const float* boxes, const int64_t* image_index,
                                    void* grad_tokens, Dtype dtype, const RegionShape& shape, int64_t* begin,
                                    int64_t* order, float* weights, int device, void* stream);
#endif

}  // namespace fgclip
