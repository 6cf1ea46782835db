// Hard-negative loss: cross-entropy of each region [D] over its own texts [offsets[r], offsets[r + 1]) by scaled cosine
// similarity; the first text is the positive. Rows may have any length; a zero row has similarity 0 and gradient 0.
#pragma once

#include <type_traits>

#include "dtypes.h"

namespace fgclip {

// The type of sums, similarities and losses: fp32, or fp64 for fp64 inputs, with which gradients are checked.
template <typename T>
using Statistics = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Rows are contiguous; scale, losses, similarity, text_inverse and grad_scale have the type Statistics.
struct HardNegativeInputs {
  const void *regions, *texts;  // [R, D], [M, D]
  const int64_t* offsets;       // [R + 1], rising from 0 to M
  const void* scale;            // []
  int64_t R, D;
};

struct HardNegativeSaved {
  void* losses;                     // [R]
  void *similarity, *text_inverse;  // [M], cosine and 1 / length (0 for a zero row) of each text
};

// loss []: the mean over the regions that have a negative, 0 if none has; rank [R]: how many negatives beat the
// positive.
void hard_negative_loss_forward_cpu(const HardNegativeInputs& inputs, const HardNegativeSaved& saved, void* loss,
                                    int64_t* rank, Dtype dtype);

void hard_negative_loss_backward_cpu(const void* grad_loss, const HardNegativeInputs& inputs,
                                     const HardNegativeSaved& saved, void* grad_regions, void* grad_texts,
                                     void* grad_scale, Dtype dtype);

}  // namespace fgclip
