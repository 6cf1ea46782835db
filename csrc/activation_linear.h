// Bias and activation between the two matrix products of an MLP: quick_gelu, x * sigmoid(1.702 x), or gelu, by erf.
#pragma once

#include "dtypes.h"

namespace fgclip {

// out [rows, width] = activation(hidden + bias [width]).
void activation_forward_cpu(const void* hidden, const float* bias, void* out, int64_t rows, int width, bool quick,
                            Dtype dtype);

// grad [rows, width] holds the gradient of the activation's output and receives that of hidden. out receives the
// activation's output, computed again; grad_bias [width] the column sums, with the same bits on any number of threads.
void activation_backward_cpu(void* grad, const void* hidden, const float* bias, void* out, float* grad_bias,
                             int64_t rows, int width, bool quick, Dtype dtype);

}  // namespace fgclip
