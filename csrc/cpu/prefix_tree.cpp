// Builds the prefix tree on one thread, since the data loader's worker processes call it and OpenMP does not survive a
// fork.
#include "prefix_tree.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace fgclip {
namespace {

struct Row {
  const int32_t* token;
  int32_t length;  // up to and with the first EOS, or the path's limit
  int32_t index;   // in the caller's order
  uint64_t key;    // the two tokens that the sort compares

  // A truncated row ends with EOS, too, so that no row is a prefix of another.
  int32_t at(int32_t depth, int32_t eos) const {
    return depth < length - 1 ? token[depth] : depth == length - 1 ? eos : 0;
  }
};

void require(bool holds, const char* rule, int64_t row) {
  if (holds) return;
  throw std::invalid_argument("prefix_tree: " + std::string(rule) + ", row " + std::to_string(row) + " does not");
}

std::vector<Row> rows_until_eos(const int32_t* token, int64_t T0, const int64_t* offsets, int64_t M, int64_t shorts,
                                int32_t eos) {
  if (offsets[0] != 0 || offsets[M] != T0) {
    throw std::invalid_argument("prefix_tree: offsets must go from 0 to len(token) = " + std::to_string(T0) + ", got " +
                                std::to_string(offsets[0]) + " to " + std::to_string(offsets[M]));
  }
  std::vector<Row> rows(M);
  for (int64_t r = 0; r < M; ++r) {
    require(offsets[r] <= offsets[r + 1] && offsets[r + 1] <= T0, "offsets must rise to len(token)", r);
    const int32_t* first = token + offsets[r];
    const int32_t* last = token + offsets[r + 1];
    const int64_t length = std::find(first, last, eos) - first + 1;
    require(length <= last - first, "every row must hold EOS", r);
    const int64_t limit = r < shorts ? short_length : long_length;
    rows[r] = {first, static_cast<int32_t>(std::min(length, limit)), static_cast<int32_t>(r), 0};
  }
  return rows;
}

// Sorts by two tokens, then ties by the next two; equal texts stay in the caller's order.
void sort_rows(Row* first, Row* last, int32_t depth, int32_t eos) {
  for (Row* row = first; row != last; ++row) {
    row->key = static_cast<uint64_t>(static_cast<uint32_t>(row->at(depth, eos))) << 32 |
               static_cast<uint32_t>(row->at(depth + 1, eos));
  }
  std::sort(first, last, [](const Row& a, const Row& b) { return a.key != b.key ? a.key < b.key : a.index < b.index; });
  while (first != last) {
    Row* tie = std::find_if(first, last, [first](const Row& row) { return row.key != first->key; });
    if (tie - first > 1 && depth + 2 < first->length) sort_rows(first, tie, depth + 2, eos);
    first = tie;
  }
}

int32_t common_prefix(const Row& a, const Row& b, int32_t eos) {
  const int32_t shorter = std::min(a.length, b.length);
  int32_t depth = 0;
  while (depth < shorter && a.at(depth, eos) == b.at(depth, eos)) ++depth;
  return depth;
}

class Writer {
 public:
  Writer(int64_t T0, int64_t M) {
    for (auto* array : {&tree_.token, &tree_.position, &tree_.end, &tree_.key}) array->reserve(T0);
    tree_.pooled.resize(M);
    for (auto* offsets :
         {&tree_.spine_offsets, &tree_.far_key_offsets, &tree_.sum_offsets, &tree_.query_offsets, &tree_.key_offsets}) {
      offsets->push_back(0);
    }
  }

  // Writes one sorted list of rows; the next list begins at a root of its own.
  void write(const Row* first, const Row* last, int32_t table_row, bool share, int32_t eos) {
    for (const Row* row = first; row != last; ++row) {
      const int32_t shared = share && row != first ? common_prefix(row[-1], *row, eos) : 0;
      close(shared);
      for (int32_t depth = shared; depth < row->length; ++depth) append(row->at(depth, eos), table_row + depth);
      if (shared < row->length) end_run();
      tree_.pooled[row->index] = path_.back();
    }
    close(0);
  }

  // Writes inert tokens: each attends to itself alone, and no other token attends to it.
  void fill(int64_t multiple, int32_t eos) {
    while (tree_.token.size() % multiple != 0) {
      append(eos, 0);
      end_run();
      close(0);
    }
  }

  PrefixTree finish() {
    if (!tree_.token.empty()) tree_.spine_offsets.push_back(tree_.spine.size());
    order_sums(gather_far());
    return std::move(tree_);
  }

 private:
  void append(int32_t token, int32_t position) {
    const auto index = static_cast<int32_t>(tree_.token.size());
    if (index % tile_size == 0) {
      if (index > 0) tree_.spine_offsets.push_back(tree_.spine.size());
      tree_.spine.insert(tree_.spine.end(), path_.begin(), path_.end());
    }
    path_.push_back(index);
    tree_.token.push_back(token);
    tree_.position.push_back(position);
    tree_.end.push_back(0);
  }

  void close(size_t depth) {
    for (; path_.size() > depth; path_.pop_back()) tree_.end[path_.back()] = tree_.token.size();
  }

  void end_run() {
    tree_.query_offsets.push_back(tree_.token.size());
    tree_.key.insert(tree_.key.end(), path_.begin(), path_.end());
    tree_.key_offsets.push_back(tree_.key.size());
  }

  std::vector<int32_t> gather_far() {
    std::vector<int32_t> far;
    for (int32_t tile = 0; tile + 1 < static_cast<int32_t>(tree_.spine_offsets.size()); ++tile) {
      for (int32_t s = tree_.spine_offsets[tile]; s < tree_.spine_offsets[tile + 1]; ++s) {
        if (tile - tree_.spine[s] / tile_size >= reach) far.push_back(tree_.spine[s]);
      }
      tree_.far_key_offsets.push_back(far.size());
    }
    return far;
  }

  void order_sums(const std::vector<int32_t>& far) {
    auto& rows = tree_.far_rows;
    for (size_t row = 0; row < far.size(); ++row) rows.push_back(row);
    std::stable_sort(rows.begin(), rows.end(), [&far](int a, int b) { return far[a] < far[b]; });
    for (size_t i = 0; i < rows.size(); ++i) {
      if (i == 0 || far[rows[i]] != far[rows[i - 1]]) {
        tree_.sum_key.push_back(far[rows[i]]);
        tree_.sum_offsets.push_back(0);
      }
      tree_.sum_offsets.back() = i + 1;
    }
  }

  PrefixTree tree_;
  std::vector<int32_t> path_;  // from the root to the last token written
};

}  // namespace

PrefixTree prefix_tree(const int32_t* token, int64_t T0, const int64_t* offsets, int64_t M, int64_t shorts, bool share,
                       int64_t multiple, int32_t eos) {
  std::vector<Row> rows = rows_until_eos(token, T0, offsets, M, shorts, eos);
  Row* const middle = rows.data() + shorts;
  Row* const last = rows.data() + M;
  if (share) sort_rows(rows.data(), middle, 0, eos);
  if (share) sort_rows(middle, last, 0, eos);
  Writer writer(T0, M);
  writer.write(rows.data(), middle, 0, share, eos);
  writer.write(middle, last, short_length, share, eos);
  writer.fill(multiple, eos);
  return writer.finish();
}

}  // namespace fgclip
