// Prefix tree of a batch of texts, its tokens in preorder: the subtree of token j is the range [j, end[j]).
#pragma once

#include <cstdint>
#include <vector>

namespace fgclip {

// The same four constants are in ops/tree.py.
constexpr int tile_size = 64;     // tokens that attend together
constexpr int reach = 8;          // a key this many tiles or more before a tile is one of its far keys
constexpr int short_length = 77;  // tokens of a short-path text
constexpr int long_length = 248;  // tokens of a long-path text

struct PrefixTree {
  std::vector<int32_t> token, position, end;   // [T]; position is a row of the short table followed by the long one
  std::vector<int32_t> pooled;                 // [M], each text's first EOS token
  std::vector<int32_t> spine_offsets, spine;   // of each tile: the ancestors of its first token, root first
  std::vector<int32_t> far_key_offsets;        // [tiles + 1], running count of far keys, the first ones of each spine
  std::vector<int32_t> sum_key;                // the distinct far keys, rising
  std::vector<int32_t> sum_offsets, far_rows;  // of each sum_key: its rows in the list of all tiles' far keys
  std::vector<int32_t> query_offsets;          // [G + 1], the first token of each segment, then T
  std::vector<int32_t> key_offsets, key;       // of each segment: the path from the root to its last token
};

// token [T0], offsets [M + 1]; rows below `shorts` are short-path texts. If `share` is false, every text is a chain of
// its own. T is rounded up to a multiple of `multiple` with inert tokens. Throws std::invalid_argument for a row
// without EOS or offsets that do not rise from 0 to T0; the message names the row.
PrefixTree prefix_tree(const int32_t* token, int64_t T0, const int64_t* offsets, int64_t M, int64_t shorts, bool share,
                       int64_t multiple, int32_t eos);

}  // namespace fgclip
