// Region embedding on a CPU. Both directions are sums of weighted rows: a region is a sum of tokens, a token's gradient
// is a sum of regions' gradients. One thread writes each output, in a fixed order: the same bits on any number of
// threads.
#include "region_embedding.h"

#include <vector>

#include "cpu/huge_pages.h"
#include "cpu/sum_rows.h"

namespace fgclip {
namespace {

// The boxes of each image and the weights of each box.
struct Boxes {
  const int64_t* image_index;
  const int H, W;
  std::vector<int64_t> begin, order;  // order[begin[b]] to order[begin[b + 1] - 1] are image b's, rising
  std::vector<Axis> ys, xs;
  std::vector<float> weight_y, weight_x;  // [R, H], [R, W]

  Boxes(const float* boxes, const int64_t* images, const RegionShape& shape)
      : image_index(images), H(shape.H), W(shape.W), begin(shape.B + 1), order(shape.R), ys(shape.R), xs(shape.R),
        weight_y(shape.R * shape.H), weight_x(shape.R * shape.W) {
    for (int64_t r = 0; r < shape.R; ++r) ++begin[image_index[r] + 1];
    for (int64_t b = 0; b < shape.B; ++b) begin[b + 1] += begin[b];
    std::vector<int64_t> next(begin.begin(), begin.end() - 1);
    for (int64_t r = 0; r < shape.R; ++r) order[next[image_index[r]]++] = r;
#pragma omp parallel for
    for (int64_t r = 0; r < shape.R; ++r) {
      ys[r] = axis_of(boxes[4 * r + 1], boxes[4 * r + 3], H);
      xs[r] = axis_of(boxes[4 * r], boxes[4 * r + 2], W);
      for (int y = ys[r].first; y < ys[r].last; ++y) weight_y[r * H + y] = cell_weight(ys[r], H, y);
      for (int x = xs[r].first; x < xs[r].last; ++x) weight_x[r * W + x] = cell_weight(xs[r], W, x);
    }
  }

  float weight(int64_t r, int y, int x) const { return weight_y[r * H + y] * weight_x[r * W + x]; }
};

template <typename T>
struct Rows {
  std::vector<const T*> row;
  std::vector<float> weight;

  void clear() { row.clear(), weight.clear(); }
  void add(const T* source, float by) { row.push_back(source), weight.push_back(by); }
  void sum(int C, T* out) const { sum_rows(row.data(), weight.data(), static_cast<int>(row.size()), C, out); }
};

template <typename T>
void forward(const T* tokens, const Boxes& boxes, T* out, const RegionShape& shape) {
#pragma omp parallel
  {
    Rows<T> rows;
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < shape.R; ++i) {
      const int64_t r = boxes.order[i];  // image by image, so that its tokens stay in the cache
      const T* image = tokens + boxes.image_index[r] * shape.image_stride;
      rows.clear();
      for (int y = boxes.ys[r].first; y < boxes.ys[r].last; ++y)
        for (int x = boxes.xs[r].first; x < boxes.xs[r].last; ++x)
          rows.add(image + (static_cast<int64_t>(y) * shape.W + x) * shape.token_stride, boxes.weight(r, y, x));
      rows.sum(shape.C, out + r * shape.C);
    }
  }
}

template <typename T>
void backward(const T* grad_out, const Boxes& boxes, T* grad_tokens, const RegionShape& shape) {
  advise_huge_pages(grad_tokens, shape.B * shape.H * shape.W * shape.C * static_cast<int64_t>(sizeof(T)));
#pragma omp parallel
  {
    Rows<T> rows;
    std::vector<int64_t> met;  // the boxes that touch this row of cells
#pragma omp for schedule(dynamic, 1)
    for (int64_t row = 0; row < shape.B * shape.H; ++row) {
      const int64_t b = row / shape.H;
      const int y = static_cast<int>(row % shape.H);
      met.clear();
      for (int64_t i = boxes.begin[b]; i < boxes.begin[b + 1]; ++i)
        if (boxes.ys[boxes.order[i]].covers(y)) met.push_back(boxes.order[i]);
      for (int x = 0; x < shape.W; ++x) {
        rows.clear();
        for (const int64_t r : met)
          if (boxes.xs[r].covers(x)) rows.add(grad_out + r * shape.C, boxes.weight(r, y, x));
        rows.sum(shape.C, grad_tokens + (row * shape.W + x) * shape.C);
      }
    }
  }
}

}  // namespace

void region_embedding_forward_cpu(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                  Dtype dtype, const RegionShape& shape) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    forward(static_cast<const T*>(tokens), Boxes(boxes, image_index, shape), static_cast<T*>(out), shape);
  });
}

void region_embedding_backward_cpu(const void* grad_out, const float* boxes, const int64_t* image_index,
                                   void* grad_tokens, Dtype dtype, const RegionShape& shape) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    backward(static_cast<const T*>(grad_out), Boxes(boxes, image_index, shape), static_cast<T*>(grad_tokens), shape);
  });
}

}  // namespace fgclip
