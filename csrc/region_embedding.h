// Region embedding: RoIAlign with a 1x1 output (sampling_ratio=-1, aligned=True) over tokens [B, H * W, C].
// It is separable: a box weighs the token of cell (y, x) by weight_y[y] * weight_x[x].
#pragma once

#include <math.h>

#include "dtypes.h"

namespace fgclip {

struct RegionShape {
  int64_t B, R;
  int H, W, C;
  int64_t image_stride, token_stride;  // of the tokens that are read, in elements; channels are adjacent
};

// The cells [first, last) of one axis that a box touches.
struct Span {
  int first, last;
};

// A position in cells, rounded: a fused multiply-add would change the number of samples of some boxes.
FGCLIP_HD float in_cells(float fraction, int size) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(fraction, static_cast<float>(size));
#else
  const volatile float cells = fraction * static_cast<float>(size);
  return cells;
#endif
}

// Writes to weight[0, size) the mean of ceil(length) bilinear samples between two fractions of an axis, in torchvision's order
// of operations. A box without length, inverted or not finite touches nothing.
FGCLIP_HD Span axis_weights(float from, float to, int size, float* weight) {
  for (int cell = 0; cell < size; ++cell) weight[cell] = 0.0f;
  const float start = in_cells(from, size) - 0.5f, length = in_cells(to, size) - 0.5f - start;
  if (!(length > 0.0f) || !(length < 1e30f) || !(start > -1e30f)) return {0, 0};
  const float samples = ceilf(length), spacing = length / samples;
  // Samples lie over half a cell apart, so only so many can touch the axis, however far the box reaches beyond it.
  const float skipped = fmaxf(floorf((-1.0f - start) / spacing) - 2.0f, 0.0f);
  Span span{size, 0};
  for (int i = 0; i < 2 * size + 8 && skipped + i < samples; ++i) {
    float at = start + (skipped + i + 0.5f) * length / samples;
    if (at < -1.0f || at > size) continue;  // adds nothing, yet counts in the mean
    at = fminf(fmaxf(at, 0.0f), size - 1.0f);
    const int low = static_cast<int>(at), high = low + 1 < size ? low + 1 : low;
    weight[low] += (low + 1 - at) / samples;
    weight[high] += (at - low) / samples;
    span.first = low < span.first ? low : span.first;
    span.last = high + 1;
  }
  return span.first < span.last ? span : Span{0, 0};
}

// tokens (strided as the shape says), boxes [R, 4] fractions xyxy, image_index [R] in [0, B) -> out [R, C].
void region_embedding_forward_cpu(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                  Dtype dtype, const RegionShape& shape);

// grad_out [R, C] -> grad_tokens [B, H * W, C], contiguous.
void region_embedding_backward_cpu(const void* grad_out, const float* boxes, const int64_t* image_index,
                                   void* grad_tokens, Dtype dtype, const RegionShape& shape);

}  // namespace fgclip
