// Huge pages for large results.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fgclip {

// Asks for pages of 2 MiB: with pages of 4 KiB, the page faults of fresh memory take longer than the computation.
inline void advise_huge_pages(void* data, int64_t bytes) {
#ifdef __linux__
  constexpr std::uintptr_t page = 2 << 20;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // best effort
#endif
}

}  // namespace fgclip
