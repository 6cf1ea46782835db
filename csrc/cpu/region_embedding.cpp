// Both directions are sums of weighted rows: a region is a sum of tokens, a token's gradient a sum of regions' gradients. Every
// row is written once, by one thread, in a fixed order: the same bits on any number of threads.
#include "region_embedding.h"

#include <vector>

namespace fgclip {
namespace {

// Runs on the widest vectors that the machine has; the compiler makes one copy for each.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FGCLIP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FGCLIP_CLONES
#endif

constexpr int BLOCK = 64;  // channels summed at a time, in registers

template <typename T>
struct Rows {
  std::vector<const T*> row;
  std::vector<float> weight;
  void clear() { row.clear(), weight.clear(); }
  void add(const T* source, float by) { row.push_back(source), weight.push_back(by); }
};

template <typename T>
FGCLIP_HD void sum_block(const T* const* row, const float* weight, int rows, int first, int channels, T* out) {
  float sum[BLOCK] = {};
  for (int k = 0; k < rows; ++k) {
    if (channels == BLOCK) {
      for (int c = 0; c < BLOCK; ++c) sum[c] += weight[k] * to_float(row[k][first + c]);
    } else {
      for (int c = 0; c < channels; ++c) sum[c] += weight[k] * to_float(row[k][first + c]);
    }
  }
  for (int c = 0; c < channels; ++c) from_float(sum[c], out + first + c);
}

#define FGCLIP_SUM_ROWS(T)                                                                                  \
  FGCLIP_CLONES void sum_rows(const T* const* row, const float* weight, int rows, int C, T* out) {         \
    for (int c = 0; c < C; c += BLOCK) sum_block(row, weight, rows, c, C - c < BLOCK ? C - c : BLOCK, out); \
  }
FGCLIP_SUM_ROWS(float)
FGCLIP_SUM_ROWS(bfloat16)
FGCLIP_SUM_ROWS(float16)

template <typename T>
void forward(const T* tokens, const float* boxes, const int64_t* image_index, T* out, const RegionShape& shape) {
#pragma omp parallel
  {
    std::vector<float> weight_y(shape.H), weight_x(shape.W);
    Rows<T> rows;
#pragma omp for schedule(dynamic, 1)
    for (int64_t r = 0; r < shape.R; ++r) {
      const float* box = boxes + 4 * r;
      const Span ys = axis_weights(box[1], box[3], shape.H, weight_y.data());
      const Span xs = axis_weights(box[0], box[2], shape.W, weight_x.data());
      const T* image = tokens + image_index[r] * shape.image_stride;
      rows.clear();
      for (int y = ys.first; y < ys.last; ++y)
        for (int x = xs.first; x < xs.last; ++x)
          rows.add(image + (static_cast<int64_t>(y) * shape.W + x) * shape.token_stride, weight_y[y] * weight_x[x]);
      sum_rows(rows.row.data(), rows.weight.data(), static_cast<int>(rows.row.size()), shape.C, out + r * shape.C);
    }
  }
}

// The boxes of each image, in the order in which they came: [begin[b], begin[b + 1]) of order belongs to image b.
struct Grouped {
  std::vector<int64_t> begin, order;
  Grouped(const int64_t* image_index, const RegionShape& shape) : begin(shape.B + 1), order(shape.R) {
    for (int64_t r = 0; r < shape.R; ++r) ++begin[image_index[r] + 1];
    for (int64_t b = 0; b < shape.B; ++b) begin[b + 1] += begin[b];
    std::vector<int64_t> next(begin.begin(), begin.end() - 1);
    for (int64_t r = 0; r < shape.R; ++r) order[next[image_index[r]]++] = r;
  }
};

template <typename T>
void backward(const T* grad_out, const float* boxes, const int64_t* image_index, T* grad_tokens,
              const RegionShape& shape) {
  const int H = shape.H, W = shape.W, C = shape.C;
  const Grouped grouped(image_index, shape);
  std::vector<float> weight_y(shape.R * H), weight_x(shape.R * W);
#pragma omp parallel
  {
#pragma omp for
    for (int64_t r = 0; r < shape.R; ++r) {
      axis_weights(boxes[4 * r + 1], boxes[4 * r + 3], H, weight_y.data() + r * H);
      axis_weights(boxes[4 * r], boxes[4 * r + 2], W, weight_x.data() + r * W);
    }
    Rows<T> rows;
#pragma omp for schedule(dynamic, 16)
    for (int64_t cell = 0; cell < shape.B * H * W; ++cell) {
      const int64_t b = cell / (H * W);
      const int y = static_cast<int>(cell / W % H), x = static_cast<int>(cell % W);
      rows.clear();
      for (int64_t i = grouped.begin[b]; i < grouped.begin[b + 1]; ++i) {
        const int64_t r = grouped.order[i];
        const float weight = weight_y[r * H + y] * weight_x[r * W + x];
        if (weight != 0.0f) rows.add(grad_out + r * C, weight);
      }
      sum_rows(rows.row.data(), rows.weight.data(), static_cast<int>(rows.row.size()), C, grad_tokens + cell * C);
    }
  }
}

}  // namespace

void region_embedding_forward_cpu(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                  Dtype dtype, const RegionShape& shape) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    forward(static_cast<const T*>(tokens), boxes, image_index, static_cast<T*>(out), shape);
  });
}

void region_embedding_backward_cpu(const void* grad_out, const float* boxes, const int64_t* image_index,
                                   void* grad_tokens, Dtype dtype, const RegionShape& shape) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    backward(static_cast<const T*>(grad_out), boxes, image_index, static_cast<T*>(grad_tokens), shape);
  });
}

}  // namespace fgclip
