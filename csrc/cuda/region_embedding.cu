// Launches of the region embedding's kernels.
#include "cuda/region_embedding.cuh"

#include "cuda/launch.h"

namespace fgclip {
namespace {

constexpr char forward_name[] = "region_embedding", backward_name[] = "region_embedding's backward";
const dim3 block(warp_size, warps);

void check_size(int64_t blocks, const char* who) {
  if (blocks > 0x7fffffff) throw std::runtime_error(std::string(who) + ": too large for one launch");
}

// True if rows that begin at `address`, `stride` elements apart, can be read 16 bytes at a time.
template <typename T>
bool aligned(const void* address, int64_t stride) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0 && stride * sizeof(T) % 16 == 0;
}

template <typename T, int VECTOR>
void forward(const T* tokens, const float* boxes, const int64_t* image_index, T* out, const RegionShape& shape,
             cudaStream_t stream) {
  const dim3 grid = forward_grid(shape, VECTOR);
  forward_kernel<T, VECTOR><<<grid, block, 0, stream>>>(tokens, boxes, image_index, out, shape);
}

template <typename T, int VECTOR>
void backward(const T* grad_out, const int64_t* begin, const int64_t* order, const float* weights, T* grad_tokens,
              const RegionShape& shape, cudaStream_t stream) {
  const dim3 grid = backward_grid(shape);
  backward_kernel<T, VECTOR><<<grid, block, 0, stream>>>(grad_out, begin, order, weights, grad_tokens, shape);
}

}  // namespace

void region_embedding_forward_cuda(const void* tokens, const float* boxes, const int64_t* image_index, void* out,
                                   Dtype dtype, const RegionShape& shape, int device, void* stream) {
  const OnDevice on_device(device, forward_name);
  check_size(shape.R, forward_name);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide =
        aligned<T>(tokens, shape.C) && aligned<T>(tokens, shape.token_stride) && aligned<T>(tokens, shape.image_stride);
    const auto launch = wide ? forward<T, 16 / sizeof(T)> : forward<T, 1>;
    launch(static_cast<const T*>(tokens), boxes, image_index, static_cast<T*>(out), shape,
           static_cast<cudaStream_t>(stream));
  });
  check_cuda(cudaGetLastError(), forward_name);
}

void region_embedding_backward_cuda(const void* grad_out, const float* boxes, const int64_t* image_index,
                                    void* grad_tokens, Dtype dtype, const RegionShape& shape, int64_t* begin,
                                    int64_t* order, float* weights, int device, void* stream) {
  const OnDevice on_device(device, backward_name);
  check_size(shape.B, backward_name);
  const auto on_stream = static_cast<cudaStream_t>(stream);
  const auto images = static_cast<unsigned>(shape.B);
  group_kernel<0><<<images, block, 0, on_stream>>>(boxes, image_index, begin, order, weights, shape);
  check_cuda(cudaGetLastError(), backward_name);
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const bool wide = aligned<T>(grad_out, shape.C) && aligned<T>(grad_tokens, shape.C);
    const auto launch = wide ? backward<T, 16 / sizeof(T)> : backward<T, 1>;
    launch(static_cast<const T*>(grad_out), begin, order, weights, static_cast<T*>(grad_tokens), shape, on_stream);
  });
  check_cuda(cudaGetLastError(), backward_name);
}

}  // namespace fgclip
