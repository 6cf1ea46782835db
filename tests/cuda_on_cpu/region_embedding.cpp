// Runs the region embedding's CUDA kernels: region_embedding PROBLEM RESULT. Every buffer has its exact size, so that
// the sanitizer reports any access beyond it. The file PROBLEM holds eleven int64 (below), tokens, boxes, image_index
// and grad_out; RESULT receives out and grad_tokens, which must have the same bits under every schedule.
#include "cuda_on_cpu.h"

#include "cuda/region_embedding.cuh"

#include <fstream>

using namespace fgclip;
using cuda_on_cpu::launch;
using cuda_on_cpu::Schedule;

struct Header {
  int64_t dtype, vector, B, R, H, W, C, image_stride, token_stride, offset, elements;  // of tokens: first, and all
};

template <typename V>
std::vector<V> read(std::ifstream& file, int64_t size) {
  std::vector<V> values(size);
  file.read(reinterpret_cast<char*>(values.data()), size * sizeof(V));
  if (!file) cuda_on_cpu::fail("the problem is too short");
  return values;
}

template <typename V>
void write(std::ofstream& file, const std::vector<V>& values) {
  file.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(V));
}

// As memory comes from the allocator, but for its values: these are NaN, and far outside as an index.
template <typename V>
std::vector<V> unwritten(int64_t size) {
  std::vector<V> values(size);
  if (size > 0) std::memset(values.data(), 0xff, size * sizeof(V));
  return values;
}

template <typename T, int VECTOR>
void run(const Header& h, std::ifstream& problem, std::ofstream& result) {
  const RegionShape shape{h.B, h.R, int(h.H), int(h.W), int(h.C), h.image_stride, h.token_stride};
  const auto tokens = read<T>(problem, h.elements);
  const auto boxes = read<float>(problem, 4 * h.R);
  const auto image_index = read<int64_t>(problem, h.R);
  const auto grad_out = read<T>(problem, h.R * h.C);
  std::vector<T> first_out, first_grad;
  for (const auto schedule : {Schedule::ascending, Schedule::descending, Schedule::shuffled}) {
    auto out = unwritten<T>(h.R * h.C), grad_tokens = unwritten<T>(h.B * h.H * h.W * h.C);
    auto begin = unwritten<int64_t>(h.B + 1), order = unwritten<int64_t>(h.R);
    auto weights = unwritten<float>(h.R * (h.H + h.W));
    const dim3 block(warp_size, warps);
    launch(forward_grid(shape, VECTOR), block, schedule, [&] {
      forward_kernel<T, VECTOR>(tokens.data() + h.offset, boxes.data(), image_index.data(), out.data(), shape);
    });
    launch(dim3(h.B), block, schedule, [&] {
      group_kernel<0>(boxes.data(), image_index.data(), begin.data(), order.data(), weights.data(), shape);
    });
    launch(backward_grid(shape), block, schedule, [&] {
      backward_kernel<T, VECTOR>(grad_out.data(), begin.data(), order.data(), weights.data(), grad_tokens.data(),
                                 shape);
    });
    if (first_out.empty()) first_out = out, first_grad = grad_tokens;
    if (std::memcmp(out.data(), first_out.data(), out.size() * sizeof(T)) != 0 ||
        std::memcmp(grad_tokens.data(), first_grad.data(), grad_tokens.size() * sizeof(T)) != 0)
      cuda_on_cpu::fail("the result depends on the order in which threads run");
  }
  write(result, first_out);
  write(result, first_grad);
}

int main(int, char** argv) {
  std::ifstream problem(argv[1], std::ios::binary);
  std::ofstream result(argv[2], std::ios::binary);
  const Header h = read<Header>(problem, 1)[0];
  with_type(static_cast<Dtype>(h.dtype), [&](auto type) {
    using T = decltype(type);
    const auto run_wide_or_not = h.vector == 1 ? run<T, 1> : run<T, 16 / sizeof(T)>;
    run_wide_or_not(h, problem, result);
  });
}
