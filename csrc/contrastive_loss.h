// Arithmetic and declarations of the contrastive loss: what stands between its matrix products. All in base 2.
#pragma once

#include <cmath>
#include <cstdint>

#include "dtypes.h"

namespace fgclip {

constexpr float log2_e = 1.44269504088896341f;
constexpr float lowest = -1e30f;  // below every logit, yet finite: the maximum of none

// 2^x, relative error below 1e-7; 0 below 2^-126, 2^127 above. No branch and no call, so that loops vectorise.
inline float exp2_fast(float x) {
  const float inside = x < -126.0f ? -126.0f : x > 127.0f ? 127.0f : x;
  const float shifted = inside + 12582912.0f;  // 1.5 * 2^23: rounds to an integer, which ends up in the low bits
  const float f = inside - (shifted - 12582912.0f);
  float p = 1.5345775e-4f;  // 2^f on [-1/2, 1/2]
  p = p * f + 1.3399931e-3f;
  p = p * f + 9.618489e-3f;
  p = p * f + 5.5503286e-2f;
  p = p * f + 2.4022646e-1f;
  p = p * f + 6.931472e-1f;
  p = p * f + 1.0f;
  const float power = float_of_bits((bits_of_float(shifted) - 0x4B400000u + 127u) << 23);
  return x < -126.0f ? 0.0f : p * power;  // a NaN stays one
}

// A chunk of `rows` by `columns` products of embeddings, changed in place; the inverses are 1 / length of each
// embedding. Row r belongs to column `first` + r. Where ids are given (else null), the other columns of a row's own id
// are left out: their logit is minus infinity.
struct LogitsChunk {
  float* logits;
  int64_t rows, columns;
  float scale;
  const float *row_inverse, *column_inverse;
  int64_t first;
  const int64_t *row_ids, *column_ids;
};

// Log-sum-exps in two parts, the maximum and the logarithm of the sum of exponentials relative to it: their sum,
// rounded at scale 100, would cost a softmax near 1 its last digits.
struct Lse {
  float *maximum, *log;
};

// Products become logits in base 2. Gives each row's log-sum-exp and own logit; the columns' running maxima and sums
// (not yet logarithms) go on from `lowest` and 0, unless null.
void contrastive_loss_forward_cpu(const LogitsChunk& chunk, Lse rows, float* positive, Lse columns);

// Products (or, where `kept`, the logits that the forward pass left) become softmax over their row + softmax over their
// column - 2 on the diagonal, times both inverses.
void contrastive_loss_backward_cpu(const LogitsChunk& chunk, bool kept, Lse rows, Lse columns);

}  // namespace fgclip
