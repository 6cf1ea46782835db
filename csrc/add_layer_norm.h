// Residual addition and LayerNorm in one pass over rows [rows, width], which are contiguous. Parameters and statistics
// are fp32. A null pointer leaves its part out. `stream` is the dtype of residual, total and their gradients; the other
// dtypes are those that matrix products write (update) and read (normed).
#pragma once

#include "dtypes.h"

namespace fgclip {

// total = residual + update + update_bias, rounded to `stream`; normed = LayerNorm of the rounded total.
// statistics [2, rows]: mean and 1 / standard deviation. Without an update, total is not written.
struct AddLayerNormForward {
  const void *residual, *update;             // [rows, width]
  const float *update_bias, *weight, *bias;  // [width]
  void *total, *normed;                      // [rows, width]
  float* statistics;
  int64_t rows;
  int width;
  float eps;
  Dtype stream, update_dtype, normed_dtype;
};
void add_layer_norm_forward_cpu(const AddLayerNormForward& call);

// grad_residual is the gradient of residual and update; grad_other, unless null, is the same in another dtype. normed,
// unless null, is made again for the gradients of the products that read it; else bias is not read.
// columns [3, width]: the gradients of weight, bias and update_bias. Sums over rows have the same bits on any number of
// threads.
struct AddLayerNormBackward {
  const void *grad_total, *grad_normed, *total;
  const float *statistics, *weight, *bias;
  void *grad_residual, *grad_other, *normed;
  float* columns;
  int64_t rows;
  int width;
  Dtype stream, normed_dtype, other_dtype;
};
void add_layer_norm_backward_cpu(const AddLayerNormBackward& call);

}  // namespace fgclip
