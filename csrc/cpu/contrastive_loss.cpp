// Contrastive loss on a CPU: the passes over logits between its matrix products. Each thread has columns of its own,
// and sums run in a fixed order: the same bits on any number of threads.
#include "contrastive_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/exp2.h"
#include "cpu/simd.h"

namespace fgclip {
namespace {

// A tile of logits has 64 KiB. It is read twice, the second time from the L2 cache.
constexpr int tile_rows = 16, tile_columns = 1024;
constexpr float infinity = std::numeric_limits<float>::infinity();

FGCLIP_SIMD void scale_row(float* row, const float* column_inverse, int columns, float k) {
#pragma omp simd
  for (int c = 0; c < columns; ++c) row[c] *= k * column_inverse[c];
}

FGCLIP_SIMD void leave_out(float* row, const int64_t* column_ids, int columns, int64_t id) {
#pragma omp simd
  for (int c = 0; c < columns; ++c) row[c] = column_ids[c] == id ? -infinity : row[c];
}

FGCLIP_SIMD float raise_maxima(const float* row, int columns, float* column_maximum) {
  float maximum = lowest;
#pragma omp simd reduction(max : maximum)
  for (int c = 0; c < columns; ++c) {
    maximum = row[c] > maximum ? row[c] : maximum;
    column_maximum[c] = row[c] > column_maximum[c] ? row[c] : column_maximum[c];
  }
  return maximum;
}

FGCLIP_SIMD float add_to_sums(const float* row, int columns, float maximum, const float* column_maximum,
                              float* column_sum) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int c = 0; c < columns; ++c) {
    sum += exp2_fast(row[c] - maximum);
    column_sum[c] += exp2_fast(row[c] - column_maximum[c]);
  }
  return sum;
}

FGCLIP_SIMD void rescale(float* sum, int columns, const float* old_maximum, const float* maximum) {
#pragma omp simd
  for (int c = 0; c < columns; ++c) sum[c] *= exp2_fast(old_maximum[c] - maximum[c]);
}

// Softmax over the row + softmax over the column, at one logit.
inline float both_softmaxes(float logit, float row_maximum, float row_log, float maximum, float log) {
  return exp2_fast(logit - row_maximum - row_log) + exp2_fast(logit - maximum - log);
}

FGCLIP_SIMD void weigh_row(float* row, int columns, Lse row_lse, Lse lse, float row_inverse,
                           const float* column_inverse) {
  const float row_maximum = *row_lse.maximum, row_log = *row_lse.log;
#pragma omp simd
  for (int c = 0; c < columns; ++c) {
    row[c] =
        both_softmaxes(row[c], row_maximum, row_log, lse.maximum[c], lse.log[c]) * (row_inverse * column_inverse[c]);
  }
}

Lse operator+(Lse lse, int64_t step) { return {lse.maximum + step, lse.log + step}; }

// Products of row r, columns [begin, begin + columns), become logits in base 2.
float* logits_of(const LogitsChunk& chunk, int64_t r, int64_t begin, int columns) {
  float* const row = chunk.logits + r * chunk.columns + begin;
  scale_row(row, chunk.column_inverse + begin, columns, chunk.scale * log2_e * chunk.row_inverse[r]);
  if (chunk.row_ids) {
    const int64_t own = chunk.first + r - begin;
    const bool here = own >= 0 && own < columns;
    const float positive = here ? row[own] : 0.0f;
    leave_out(row, chunk.column_ids + begin, columns, chunk.row_ids[r]);
    if (here) row[own] = positive;
  }
  return row;
}

struct Sum {
  float maximum, sum;
};

// Sums of exponentials over one tile, rows [top, bottom): row_sums of each row, added to the columns' running sums.
void tile_sums(const LogitsChunk& chunk, int64_t top, int64_t bottom, int64_t begin, int columns, Sum* row_sums,
               float* column_maximum, float* column_sum) {
  float old_maximum[tile_columns];
  std::copy_n(column_maximum, columns, old_maximum);
  for (int64_t r = top; r < bottom; ++r) {
    row_sums[r].maximum = raise_maxima(logits_of(chunk, r, begin, columns), columns, column_maximum);
  }
  rescale(column_sum, columns, old_maximum, column_maximum);
  for (int64_t r = top; r < bottom; ++r) {
    const float* const row = chunk.logits + r * chunk.columns + begin;
    row_sums[r].sum = add_to_sums(row, columns, row_sums[r].maximum, column_maximum, column_sum);
  }
}

// Adds a chunk's sums to the columns' running sums.
void add_chunk(Lse total, const float* maximum, const float* sum, int columns) {
  for (int c = 0; c < columns; ++c) {
    const float raised = std::max(total.maximum[c], maximum[c]);
    total.log[c] = total.log[c] * exp2_fast(total.maximum[c] - raised) + sum[c] * exp2_fast(maximum[c] - raised);
    total.maximum[c] = raised;
  }
}

// The sum of one row over all intervals of columns; sums [intervals, rows], beginning at the row.
Sum total(const Sum* sums, int64_t intervals, int64_t rows) {
  Sum all{lowest, 0.0f};
  for (int64_t i = 0; i < intervals; ++i) all.maximum = std::max(all.maximum, sums[i * rows].maximum);
  for (int64_t i = 0; i < intervals; ++i)
    all.sum += sums[i * rows].sum * exp2_fast(sums[i * rows].maximum - all.maximum);
  return all;
}

// True if the work takes longer than waking a second thread.
bool is_large(const LogitsChunk& chunk) { return chunk.rows * chunk.columns >= 1 << 16; }

}  // namespace

void contrastive_loss_forward_cpu(const LogitsChunk& chunk, Lse rows, float* positive, Lse columns) {
  const int64_t intervals = (chunk.columns + tile_columns - 1) / tile_columns;
  std::vector<Sum> row_sums(intervals * chunk.rows);
#pragma omp parallel for schedule(static) if (is_large(chunk))
  for (int64_t i = 0; i < intervals; ++i) {
    const int64_t begin = i * tile_columns;
    const int size = static_cast<int>(std::min<int64_t>(tile_columns, chunk.columns - begin));
    float column_maximum[tile_columns],
        column_sum[tile_columns] = {};  // of this chunk alone, since one long sum would lose digits
    std::fill_n(column_maximum, tile_columns, lowest);
    for (int64_t top = 0; top < chunk.rows; top += tile_rows) {
      const int64_t bottom = std::min(top + tile_rows, chunk.rows);
      tile_sums(chunk, top, bottom, begin, size, row_sums.data() + i * chunk.rows, column_maximum, column_sum);
    }
    if (columns.maximum) add_chunk(columns + begin, column_maximum, column_sum, size);
  }
#pragma omp parallel for schedule(static) if (is_large(chunk))
  for (int64_t r = 0; r < chunk.rows; ++r) {
    const Sum sum = total(row_sums.data() + r, intervals, chunk.rows);
    rows.maximum[r] = sum.maximum;
    rows.log[r] = std::log2(sum.sum);
    positive[r] = chunk.logits[r * chunk.columns + chunk.first + r];
  }
}

void contrastive_loss_backward_cpu(const LogitsChunk& chunk, bool kept, Lse rows, Lse columns) {
#pragma omp parallel for schedule(static) if (is_large(chunk))
  for (int64_t r = 0; r < chunk.rows; ++r) {
    for (int64_t begin = 0; begin < chunk.columns; begin += tile_columns) {
      const int size = static_cast<int>(std::min<int64_t>(tile_columns, chunk.columns - begin));
      float* const row = kept ? chunk.logits + r * chunk.columns + begin : logits_of(chunk, r, begin, size);
      const Lse own_row = rows + r, own_columns = columns + begin;
      const float* const inverse = chunk.column_inverse + begin;
      const int64_t own = chunk.first + r - begin;
      const bool here = own >= 0 && own < size;
      const float positive = here ? row[own] : 0.0f;
      weigh_row(row, size, own_row, own_columns, chunk.row_inverse[r], inverse);
      if (here) {
        // The 2 is subtracted before the product is rounded: near the end of training the difference is small.
        const float weight =
            both_softmaxes(positive, *own_row.maximum, *own_row.log, own_columns.maximum[own], own_columns.log[own]);
        row[own] = (weight - 2.0f) * (chunk.row_inverse[r] * inverse[own]);
      }
    }
  }
}

}  // namespace fgclip
