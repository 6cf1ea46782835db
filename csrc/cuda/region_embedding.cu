// Launches of the region embedding's kernels.
#include "cuda/region_embedding.cuh"

#include "cuda/launch.h"

namespace fgclip {
namespace {

constexpr char FORWARD[] = "region_embedding", BACKWARD[] = "region_embedding's backward";
constexpr int64_t LARGEST_GRID = 0x7fffffff;

unsigned blocks(int64_t work, int64_t of, const char* who) {
  const int64_t count = (work + of - 1) / of;
  if (count > LARGEST_GRID) throw std::runtime_error(std::string(who) + ": too large for one launch");
  return static_cast<unsigned>(count);
}

// Whether rows that begin at address, and lie stride elements apart, can be read 16 bytes at a time.
template <typename T>
bool aligned(const void* address, int64_t stride) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0 && stride * sizeof(T) % 16 == 0;
}

template <typename T, int VECTOR>
void forward(const T* tokens, const float* boxes, const int64_t* image_index, T* out, const RegionShape& shape,
             cudaStream_t stream) {
  const dim3 grid(blocks(shape.R, 1, FORWARD), blocks(shape.C, WARP * VECTOR, FORWARD));
  forward_kernel<T, VECTOR><<<grid, dim3(WARP, WARPS), 0, stream>>>(tokens, boxes, image_index, out, shape);
}

template <typename T, int VECTOR>
void backward(const T* grad_out, const int64_t* begin, const int64_t* order, const float* weights, T* grad_tokens,
              const RegionShape& shape, cudaStream_t stream) {
  const dim3 grid(blocks(shape.B, 1, BACKWARD), blocks(shape.H * shape.W, WARPS, BACKWARD));
  backward_kernel<T, VECTOR>
      <<<grid, dim3(WARP, WARPS), 0, stream>>>(grad_out, begin, order, weights, grad_tokens, shape);
}

}  // namespace

void region_embedding_forward_cuda(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                   Dtype dtype, const RegionShape& shape, int device, void* stream) {
  const OnDevice on_device(device, FORWARD);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide = aligned<T>(tokens, shape.C) && aligned<T>(tokens, shape.token_stride) &&
                      aligned<T>(tokens, shape.image_stride);
    const auto launch = wide ? forward<T, 16 / sizeof(T)> : forward<T, 1>;
    launch(static_cast<const T*>(tokens), boxes, image_index, static_cast<T*>(out), shape,
           static_cast<cudaStream_t>(stream));
  });
  check_cuda(cudaGetLastError(), FORWARD);
}

void region_embedding_backward_cuda(const void* grad_out, const float* boxes, const int64_t* image_index,
                                    void* grad_tokens, Dtype dtype, const RegionShape& shape, int64_t* begin,
                                    int64_t* order, float* weights, int device, void* stream) {
  const OnDevice on_device(device, BACKWARD);
  const auto on_stream = static_cast<cudaStream_t>(stream);
  group_kernel<0><<<blocks(shape.B, 1, BACKWARD), dim3(WARP, WARPS), 0, on_stream>>>(boxes, image_index, begin, order,
                                                                                   weights, shape);
  check_cuda(cudaGetLastError(), BACKWARD);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide = aligned<T>(grad_out, shape.C) && aligned<T>(grad_tokens, shape.C);
    const auto launch = wide ? backward<T, 16 / sizeof(T)> : backward<T, 1>;
    launch(static_cast<const T*>(grad_out), begin, order, weights, static_cast<T*>(grad_tokens), shape, on_stream);
  });
  check_cuda(cudaGetLastError(), BACKWARD);
}

}  // namespace fgclip
