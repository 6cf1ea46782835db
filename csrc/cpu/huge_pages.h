// Large pages for results that are written once.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fgclip {

// Fresh memory costs more than all else here: a page fault for each 4 KiB. Asks for pages of 2 MiB instead.
inline void advise_huge_pages(void* data, int64_t bytes) {
#ifdef __linux__
  constexpr std::uintptr_t page = 2 << 20;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(data) + page - 1) / page * page;
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / page * page;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // refused: no matter
#endif
}

}  // namespace fgclip
