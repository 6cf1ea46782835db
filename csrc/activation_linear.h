// Bias and activation between an MLP's two products; x * sigmoid(1.702 x), CLIP's quick_gelu.
#pragma once

#include "dtypes.h"

namespace fgclip {

// out [rows, width] = activation(hidden + bias [width]).
void activation_forward_cpu(const void* hidden, const float* bias, void* out, int64_t rows, int width, Dtype dtype);

// grad [rows, width], of the activation's output, becomes that of hidden; out is the activation's output again;
// grad_bias [width] are the column sums, added up in a fixed order on any number of threads.
void activation_backward_cpu(void* grad, const void* hidden, const float* bias, void* out, float* grad_bias,
                             int64_t rows, int width, Dtype dtype);

}  // namespace fgclip
