// Kernels of the region embedding. A warp sums weighted rows: lane k finds the weight of the k-th row, then all lanes
// read the rows that weigh something, 16 bytes a lane. No atomics: each output has one order of summation.
#pragma once

#include "region_embedding.h"

namespace fgclip {

constexpr int WARP = 32, WARPS = 8;
constexpr unsigned ALL_LANES = 0xffffffffu;

template <typename T, int VECTOR>
struct alignas(sizeof(T) * VECTOR) Packed {
  T channel[VECTOR];
};

inline dim3 forward_grid(const RegionShape& shape, int vector) {
  return dim3(static_cast<unsigned>(shape.R), static_cast<unsigned>((shape.C + WARP * vector - 1) / (WARP * vector)));
}

inline dim3 backward_grid(const RegionShape& shape) {
  return dim3(static_cast<unsigned>(shape.B), static_cast<unsigned>((shape.H * shape.W + WARPS - 1) / WARPS));
}

// Adds to sum the rows of all lanes, each by its weight, in the lanes' order; every lane must take part.
template <typename T, int VECTOR>
__device__ void add_rows(const T* rows, int64_t my_offset, float my_weight, float (&sum)[VECTOR]) {
  unsigned weighty = __ballot_sync(ALL_LANES, my_weight != 0.0f);
  while (weighty != 0) {
    const int k = __ffs(static_cast<int>(weighty)) - 1;
    weighty &= weighty - 1;
    const float weight = __shfl_sync(ALL_LANES, my_weight, k);
    const long long offset = __shfl_sync(ALL_LANES, static_cast<long long>(my_offset), k);
    const auto row = *reinterpret_cast<const Packed<T, VECTOR>*>(rows + offset);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) sum[v] += weight * to_float(row.channel[v]);
  }
}

// Grid forward_grid: (R, slices of WARP * VECTOR channels); block (WARP, WARPS): the warps share the cells under the
// box.
template <typename T, int VECTOR>
__global__ void __launch_bounds__(WARP* WARPS, 4)
    forward_kernel(const T* __restrict__ tokens, const float* __restrict__ boxes,
                   const int64_t* __restrict__ image_index, T* __restrict__ out, RegionShape shape) {
  constexpr int SLICE = WARP * VECTOR;
  __shared__ float partial[WARPS][SLICE];
  const int64_t r = blockIdx.x;
  const int lane = threadIdx.x, warp = threadIdx.y, first_channel = blockIdx.y * SLICE;
  const int channel = first_channel + lane * VECTOR;
  const Axis xs = axis_of(boxes[4 * r], boxes[4 * r + 2], shape.W);
  const Axis ys = axis_of(boxes[4 * r + 1], boxes[4 * r + 3], shape.H);
  const int columns = xs.last - xs.first, cells = columns * (ys.last - ys.first);
  // Lanes beyond the last channel read the first: they must take part in add_rows, and nobody reads their sums.
  const T* const image = tokens + image_index[r] * shape.image_stride + (channel < shape.C ? channel : 0);

  float sum[VECTOR] = {};
  for (int k = warp; k < cells; k += WARP * WARPS) {  // one warp's condition: all its lanes take part in add_rows
    const int mine = k + lane * WARPS;
    const int y = ys.first + mine / columns, x = xs.first + mine % columns;
    const float weight = mine < cells ? cell_weight(ys, shape.H, y) * cell_weight(xs, shape.W, x) : 0.0f;
    add_rows<T, VECTOR>(image, (static_cast<int64_t>(y) * shape.W + x) * shape.token_stride, weight, sum);
  }
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) partial[warp][lane * VECTOR + v] = sum[v];
  __syncthreads();
  for (int c = warp * WARP + lane; c < SLICE && first_channel + c < shape.C; c += WARP * WARPS) {
    float total = 0.0f;
    for (int w = 0; w < WARPS; ++w) total += partial[w][c];
    from_float(total, out + r * shape.C + first_channel + c);
  }
}

// Grid B, block (WARP, WARPS): boxes [begin[b], begin[b + 1]) of order are those of image b, in the order in which they
// came; also writes each box's weights of the H rows and the W columns.
template <int>  // a template, so that the header may stand in several units
__global__ void __launch_bounds__(WARP* WARPS, 4)
    group_kernel(const float* __restrict__ boxes, const int64_t* __restrict__ image_index, int64_t* __restrict__ begin,
                 int64_t* __restrict__ order, float* __restrict__ weights, RegionShape shape) {
  __shared__ int count[WARPS];
  const int64_t b = blockIdx.x;
  const int lane = threadIdx.x, warp = threadIdx.y, thread = warp * WARP + lane;
  int before = 0;
  for (int64_t r = thread; r < shape.R; r += WARP * WARPS) before += image_index[r] < b;
  for (int step = WARP / 2; step > 0; step /= 2) before += __shfl_xor_sync(ALL_LANES, before, step);
  if (lane == 0) count[warp] = before;
  __syncthreads();
  int64_t next = 0;
  for (int w = 0; w < WARPS; ++w) next += count[w];
  if (thread == 0) begin[b] = next;
  if (thread == 0 && b == shape.B - 1) begin[shape.B] = shape.R;

  for (int64_t tile = 0; tile < shape.R; tile += WARP * WARPS) {
    const int64_t r = tile + thread;
    const bool mine = r < shape.R && image_index[r] == b;
    const unsigned lanes = __ballot_sync(ALL_LANES, mine);
    __syncthreads();  // the counts before were read by all
    if (lane == 0) count[warp] = __popc(lanes);
    __syncthreads();
    int64_t position = next + __popc(lanes & ((1u << lane) - 1));
    for (int w = 0; w < WARPS; ++w) {
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

// Grid backward_grid: (B, cells of an image / WARPS); block (WARP, WARPS): one warp a token, over the boxes of its
// image.
template <typename T, int VECTOR>
__global__ void __launch_bounds__(WARP* WARPS, 4)
    backward_kernel(const T* __restrict__ grad_out, const int64_t* __restrict__ begin,
                    const int64_t* __restrict__ order, const float* __restrict__ weights, T* __restrict__ grad_tokens,
                    RegionShape shape) {
  const int lane = threadIdx.x, size = shape.H + shape.W;
  const int64_t b = blockIdx.x, last = begin[b + 1];
  const int cell = blockIdx.y * WARPS + threadIdx.y, y = cell / shape.W, x = cell % shape.W;
  if (y >= shape.H) return;
  T* const grad_token = grad_tokens + (b * shape.H * shape.W + cell) * shape.C;
  for (int first_channel = 0; first_channel < shape.C; first_channel += WARP * VECTOR) {
    const int channel = first_channel + lane * VECTOR;
    float sum[VECTOR] = {};
    for (int64_t i = begin[b]; i < last; i += WARP) {
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
