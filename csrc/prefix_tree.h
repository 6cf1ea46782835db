// Texts as one prefix tree, written out in preorder: token j's subtree is the run [j, end[j]).
#pragma once

#include <cstdint>
#include <vector>

namespace fgclip {

constexpr int TILE = 64;          // tokens that attend together
constexpr int REACH = 8;          // tiles, its own and those after it, that a key meets as its program's queries
constexpr int SHORT_LENGTH = 77;  // tokens, the short path
constexpr int LONG_LENGTH = 248;  // the long path

struct PrefixTree {
  std::vector<int32_t> token, position, end;      // [T]; position is a row of the short table followed by the long one
  std::vector<int32_t> pooled;                    // [M], where each text's first EOS went
  std::vector<int32_t> spine_offsets, spine;      // of each tile: the ancestors of its first token, root first
  std::vector<int32_t> far_offsets;               // the first of each spine lie REACH tiles back or further: so many
  std::vector<int32_t> sum_key, sum_offsets, sum_row;  // these keys, and where in the list of all of them each stands
  std::vector<int32_t> query_offsets;             // [G + 1] runs of one tree edge, and
  std::vector<int32_t> key_offsets, key;          // of each run: the path from the root to its end
};

// token [offsets[M]], offsets [M + 1]; rows below shorts are short-path. share = false: every text is its own chain.
// T is rounded up to a multiple of `multiple` with inert tokens. Throws std::invalid_argument, naming the row.
PrefixTree prefix_tree(const int32_t* token, int64_t T0, const int64_t* offsets, int64_t M, int64_t shorts, bool share,
                       int64_t multiple, int32_t eos);

}  // namespace fgclip
