// The sum of weighted rows, on the widest vectors that the machine has.
#pragma once

#include "dtypes.h"

namespace fgclip {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FGCLIP_X86 1
namespace v4 {
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
constexpr int WIDTH = 16, VECTORS = 4;
#include "cpu/sum_rows.inc"
#pragma GCC pop_options
}  // namespace v4
namespace v3 {
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
constexpr int WIDTH = 8, VECTORS = 8;
#include "cpu/sum_rows.inc"
#pragma GCC pop_options
}  // namespace v3
#endif
namespace baseline {
constexpr int WIDTH = 4, VECTORS = 8;
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
