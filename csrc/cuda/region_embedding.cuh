// Kernels of the region embedding. A warp sums weighted rows: lane k computes the weight of the k-th row, then all
// lanes read the rows with a weight other than 0, 16 bytes per lane. Without atomics: each output has one order of
// summation.
#pragma once

#include "region_embedding.h"

namespace fgclip {

constexpr int warp_size = 32, warps = 8;
constexpr unsigned all_lanes = 0xffffffffu;

template <typename T, int VECTOR>
struct alignas(sizeof(T) * VECTOR) Packed {
  T channel[VECTOR];
};

inline dim3 forward_grid(const RegionShape& shape, int vector) {
  return dim3(static_cast<unsigned>(shape.R),
              static_cast<unsigned>((shape.C + warp_size * vector - 1) / (warp_size * vector)));
}

inline dim3 backward_grid(const RegionShape& shape) {
  return dim3(static_cast<unsigned>(shape.B), static_cast<unsigned>((shape.H * shape.W + warps - 1) / warps));
}

// Adds the rows of all lanes to sum, weighted, in the order of the lanes; every lane must take part.
template <typename T, int VECTOR>
__device__ void add_rows(const T* rows, int64_t my_offset, float my_weight, float (&sum)[VECTOR]) {
  unsigned remaining = __ballot_sync(all_lanes, my_weight != 0.0f);
  while (remaining != 0) {
    const int k = __ffs(static_cast<int>(remaining)) - 1;
    remaining &= remaining - 1;
    const float weight = __shfl_sync(all_lanes, my_weight, k);
    const long long offset = __shfl_sync(all_lanes, static_cast<long long>(my_offset), k);
    const auto row = *reinterpret_cast<const Packed<T, VECTOR>*>(rows + offset);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) sum[v] += weight * to_float(row.channel[v]);
  }
}

// Grid forward_grid: (R, slices of warp_size * VECTOR channels); block (warp_size, warps): the warps share the cells
// under the box.
template <typename T, int VECTOR>
__global__ void __launch_bounds__(warp_size* warps, 4)
    forward_kernel(const T* __restrict__ tokens, const float* __restrict__ boxes,
                   const int64_t* __restrict__ image_index, T* __restrict__ out, RegionShape shape) {
  constexpr int slice = warp_size * VECTOR;
  __shared__ float partial[warps][slice];
  const int64_t r = blockIdx.x;
  const int lane = threadIdx.x, warp = threadIdx.y, first_channel = blockIdx.y * slice;
  const int channel = first_channel + lane * VECTOR;
  const Axis xs = axis_of(boxes[4 * r], boxes[4 * r + 2], shape.W);
  const Axis ys = axis_of(boxes[4 * r + 1], boxes[4 * r + 3], shape.H);
  const int columns = xs.last - xs.first, cells = columns * (ys.last - ys.first);
  // Lanes beyond the last channel read the first one: they must take part in add_rows, and their sums are not used.
  const T* const image = tokens + image_index[r] * shape.image_stride + (channel < shape.C ? channel : 0);

  float sum[VECTOR] = {};
  for (int k = warp; k < cells; k += warp_size * warps) {  // same for all lanes of a warp
    const int mine = k + lane * warps;
    const int y = ys.first + mine / columns, x = xs.first + mine % columns;
    const float weight = mine < cells ? cell_weight(ys, shape.H, y) * cell_weight(xs, shape.W, x) : 0.0f;
    add_rows<T, VECTOR>(image, (static_cast<int64_t>(y) * shape.W + x) * shape.token_stride, weight, sum);
  }
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) partial[warp][lane * VECTOR + v] = sum[v];
  __syncthreads();
  for (int c = warp * warp_size + lane; c < slice && first_channel + c < shape.C; c += warp_size * warps) {
    float total = 0.0f;
    for (int w = 0; w < warps; ++w) total += partial[w][c];
    from_float(total, out + r * shape.C + first_channel + c);
  }
}

// Groups the boxes by image: order[begin[b]] to order[begin[b + 1] - 1] are the boxes of image b, rising. Also writes
// the weights of each box for the H rows and the W columns. Grid B, block (warp_size, warps).
template <int>  // a template, so that several files can include the header
__global__ void __launch_bounds__(warp_size* warps, 4)
    group_kernel(const float* __restrict__ boxes, const int64_t* __restrict__ image_index, int64_t* __restrict__ begin,
                 int64_t* __restrict__ order, float* __restrict__ weights, RegionShape shape) {
  __shared__ int count[warps];
  const int64_t b = blockIdx.x;
  const int lane = threadIdx.x, warp = threadIdx.y, thread = warp * warp_size + lane;
  int before = 0;
  for (int64_t r = thread; r < shape.R; r += warp_size * warps) before += image_index[r] < b;
  for (int step = warp_size / 2; step > 0; step /= 2) before += __shfl_xor_sync(all_lanes, before, step);
  if (lane == 0) count[warp] = before;
  __syncthreads();
  int64_t next = 0;
  for (int w = 0; w < warps; ++w) next += count[w];
  if (thread == 0) begin[b] = next;
  if (thread == 0 && b == shape.B - 1) begin[shape.B] = shape.R;

  for (int64_t tile = 0; tile < shape.R; tile += warp_size * warps) {
    const int64_t r = tile + thread;
    const bool mine = r < shape.R && image_index[r] == b;
    const unsigned lanes = __ballot_sync(all_lanes, mine);
    __syncthreads();  // all threads have read the counts of the last tile
    if (lane == 0) count[warp] = __popc(lanes);
    __syncthreads();
    int64_t position = next + __popc(lanes & ((1u << lane) - 1));
    for (int w = 0; w < warps; ++w) {
      position += w < warp ? count[w] : 0;
      next += count[w];
    }
    if (!mine) continue;
    order[position] = r;
    const Axis xs = axis_of(boxes[4 * r], boxes[4 * r + 2], shape.W);
    const Axis ys = axis_of(boxes[4 * r + 1], boxes[4 * r + 3], shape.H);
    float* const weight = weights + r * (shape.H + shape.W);
    for (int y = 0; y < shape.H; ++y) weight[y] = ys.covers(y) ? cell_weight(ys, shape.H, y) : 0.0f;
    for (int x = 0; x < shape.W; ++x) weight[shape.H + x] = xs.covers(x) ? cell_weight(xs, shape.W, x) : 0.0f;
  }
}

// Grid backward_grid: (B, cells of an image / warps); block (warp_size, warps): one warp per token sums over the boxes
// of its image.
template <typename T, int VECTOR>
__global__ void __launch_bounds__(warp_size* warps, 4)
    backward_kernel(const T* __restrict__ grad_out, const int64_t* __restrict__ begin,
                    const int64_t* __restrict__ order, const float* __restrict__ weights, T* __restrict__ grad_tokens,
                    RegionShape shape) {
  const int lane = threadIdx.x, size = shape.H + shape.W;
  const int64_t b = blockIdx.x, last = begin[b + 1];
  const int cell = blockIdx.y * warps + threadIdx.y, y = cell / shape.W, x = cell % shape.W;
  if (y >= shape.H) return;
  T* const grad_token = grad_tokens + (b * shape.H * shape.W + cell) * shape.C;
  for (int first_channel = 0; first_channel < shape.C; first_channel += warp_size * VECTOR) {
    const int channel = first_channel + lane * VECTOR;
    float sum[VECTOR] = {};
    for (int64_t i = begin[b]; i < last; i += warp_size) {
      const int64_t r = i + lane < last ? order[i + lane] : -1;
      const float weight = r < 0 ? 0.0f : weights[r * size + y] * weights[r * size + shape.H + x];
      add_rows<T, VECTOR>(grad_out + (channel < shape.C ? channel : 0), r * shape.C, weight, sum);
    }
    if (channel >= shape.C) continue;
    Packed<T, VECTOR> row;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) from_float(sum[v], &row.channel[v]);
    *reinterpret_cast<Packed<T, VECTOR>*>(grad_token + channel) = row;
  }
}

}  // namespace fgclip
