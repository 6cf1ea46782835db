// Declarations of the contrastive loss's CPU ops: the passes over logits between its matrix products. All in base 2.
#pragma once

#include <cstdint>

namespace fgclip {

// Initial value of a running maximum: below every logit, yet finite.
constexpr float lowest = -1e30f;

// A chunk of products of embeddings, logits [rows, columns], changed in place. Column `first` + r is the positive of
// row r. row_inverse [rows] and column_inverse [columns] are 1 / length of each embedding. With row_ids and column_ids
// (else null), the other columns that have the row's id are left out: their logit is minus infinity.
struct LogitsChunk {
  float* logits;
  int64_t rows, columns;
  float scale;
  const float *row_inverse, *column_inverse;
  int64_t first;
  const int64_t *row_ids, *column_ids;
};

// Log-sum-exps in two parts: the maximum, and the logarithm of the sum of exponentials relative to it. Added up and
// rounded at scale 100, they would cost a softmax near 1 its last digits.
struct Lse {
  float *maximum, *log;
};

// Turn products into logits in base 2. Writes each row's log-sum-exp and its positive's logit [rows]. The columns'
// running maxima and sums (not logarithms yet) are updated, unless null; they start at `lowest` and 0.
void contrastive_loss_forward_cpu(const LogitsChunk& chunk, Lse rows, float* positive, Lse columns);

// Turn products (or, if `kept`, the logits that the forward pass left) into gradients of the products: softmax over the
// row + softmax over the column - 2 at the positive, times both inverses.
void contrastive_loss_backward_cpu(const LogitsChunk& chunk, bool kept, Lse rows, Lse columns);

}  // namespace fgclip
