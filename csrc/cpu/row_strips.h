// Sums over rows, such as the gradient of a bias, on many threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fgclip {

// out [size] = sum over all rows. add(first, last, sum) adds rows [first, last) to sum [size], for one strip of rows
// per call, in parallel. The strips depend on the number of rows alone and are added up in order: the same bits on any
// number of threads.
template <typename Add>
void sum_over_rows(int64_t rows, int64_t size, float* out, Add&& add) {
  constexpr int64_t max_strips = 128;
  constexpr int64_t min_rows = 16;  // of a strip; fewer do not pay for sums of their own
  const int64_t strips = std::clamp<int64_t>(rows / min_rows, 1, max_strips);
  std::vector<float> sums(strips * size);
#pragma omp parallel for schedule(static)
  for (int64_t s = 0; s < strips; ++s) add(rows * s / strips, rows * (s + 1) / strips, sums.data() + s * size);
  std::copy_n(sums.data(), size, out);
  for (int64_t s = 1; s < strips; ++s) {
    for (int64_t c = 0; c < size; ++c) out[c] += sums[s * size + c];
  }
}

}  // namespace fgclip
