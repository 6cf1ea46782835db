// The sum of weighted rows, on the widest vectors that the machine has. FGCLIP_SIMD does not serve here: the compiler
// would keep the sums in memory (measured with GCC 12: twice the time with AVX-512, four times with AVX2).
#pragma once

#include "cpu/simd.h"
#include "dtypes.h"

namespace fgclip {

#ifdef FGCLIP_X86
namespace v4 {
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
constexpr int width = 16, vectors = 4;
#include "cpu/sum_rows.inc"
#pragma GCC pop_options
}  // namespace v4
namespace v3 {
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
constexpr int width = 8, vectors = 8;
#include "cpu/sum_rows.inc"
#pragma GCC pop_options
}  // namespace v3
#endif
namespace baseline {
constexpr int width = 4, vectors = 8;
#include "cpu/sum_rows.inc"
}  // namespace baseline

template <typename T>
void sum_rows(const T* const* row, const float* weight, int rows, int C, T* out) {
#ifdef FGCLIP_X86
  static const int level = __builtin_cpu_supports("x86-64-v4") ? 4 : __builtin_cpu_supports("x86-64-v3") ? 3 : 2;
  if (level == 4) return v4::sum_rows(row, weight, rows, C, out);
  if (level == 3) return v3::sum_rows(row, weight, rows, C, out);
#endif
  baseline::sum_rows(row, weight, rows, C, out);
}

}  // namespace fgclip
