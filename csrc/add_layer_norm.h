// Residual addition and LayerNorm in one pass. Rows are contiguous; statistics and parameters are fp32; null pointers
// leave a part out. Dtypes: of the stream (residual, total and their gradients), and of what goes into products or
// comes from them.
#pragma once

#include "dtypes.h"

namespace fgclip {

struct LayerNormRows {
  int64_t rows;
  int width;
};

// total = residual + update + update_bias, normed = LayerNorm(total), of the values that total holds once rounded.
// statistics [2, rows]: mean and 1 / deviation. Without an update, total is not written.
struct AddLayerNormForward {
  const void *residual, *update;             // [rows, width]
  const float *update_bias, *weight, *bias;  // [width]
  void *total, *normed;                      // [rows, width]
  float* statistics;
  float eps;
  Dtype stream, update_dtype, normed_dtype;
};
void add_layer_norm_forward_cpu(const AddLayerNormForward& call, LayerNormRows size);

// normed again, from total and the statistics.
struct LayerNormAgain {
  const void* total;
  const float *statistics, *weight, *bias;
  void* normed;
  Dtype stream, normed_dtype;
};
void layer_norm_again_cpu(const LayerNormAgain& call, LayerNormRows size);

// The gradient of residual, once more in another dtype unless null, and columns [3, width]: the gradients of weight,
// bias and update_bias. Sums over rows run in a fixed order on any number of threads.
struct AddLayerNormBackward {
  const void *grad_total, *grad_normed, *total;
  const float *statistics, *weight;
  void *grad_residual, *grad_other;
  float* columns;
  Dtype stream, normed_dtype, other_dtype;
};
void add_layer_norm_backward_cpu(const AddLayerNormBackward& call, LayerNormRows size);

}  // namespace fgclip
