// Kernels with one fault each, and a correct one: the model of CUDA must tell them apart. Prints the result.
#include "cuda_on_cpu.h"

using cuda_on_cpu::launch;
using cuda_on_cpu::Schedule;

constexpr int N = 64;  // threads of a block: two warps

// Each thread adds its neighbour's value, which that one leaves in shared memory.
__global__ void rotate(const int* in, int* out, bool barrier) {
  __shared__ int shared[N];
  shared[threadIdx.x] = in[threadIdx.x];
  if (barrier) __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 1) % N];
}

// Uses shared memory twice; a warp operation lies between, which does not hold back the other warps.
__global__ void rotate_twice(const int* in, int* out, bool barrier) {
  __shared__ int shared[N];
  int value = in[threadIdx.x];
  for (int turn = 0; turn < 2; ++turn) {
    if (barrier) __syncthreads();
    __syncwarp();
    shared[threadIdx.x] = value;
    __syncthreads();
    value = shared[(threadIdx.x + N / 2) % N] + turn;
  }
  out[threadIdx.x] = value;
}

__global__ void read_beyond(const int* in, int* out, int by) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) + by];
}

__global__ void write_beyond_shared(int* out, int by) {
  __shared__ int shared[N];
  shared[threadIdx.x + by] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void half_at_the_barrier(int* out) {
  if (threadIdx.x < N / 2) __syncthreads();
  out[threadIdx.x] = 0;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x < N / 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 0;
}

__global__ void half_in_the_shuffle(const int* in, int* out) {
  out[threadIdx.x] = threadIdx.x % 2 == 0 ? __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 2) : 0;
  __syncthreads();
}

// Lanes come to an operation of all with different numbers of operations behind them.
__global__ void half_before_all(const int* in, int* out) {
  int value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(0xffffu, value, 1);
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value, 16);
}

// Returned lanes count as false in a ballot; nobody may ask what they hold.
__global__ void after_a_return(const int* in, int* out, bool reads) {
  if (threadIdx.x % 2 == 1) return;
  const unsigned lanes = __ballot_sync(0xffffffffu, true);
  out[threadIdx.x] = reads ? __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1) : static_cast<int>(lanes & 0xffffu);
}

struct alignas(16) Four {
  int value[4];
};

__global__ void load_four(const int* in, int* out, int by) {
  if (threadIdx.x < N / 4 - 1) out[threadIdx.x] = reinterpret_cast<const Four*>(in + by)[threadIdx.x].value[0];
}

__global__ void sum_of_a_warp(const int* in, int* out) {
  int sum = in[threadIdx.x];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
  const unsigned odd = __ballot_sync(0xffffffffu, in[threadIdx.x] % 2 == 1);
  out[threadIdx.x] = __shfl_sync(0xffffffffu, sum, 0) + 10000 * __popc(odd);
}

int main(int argc, char** argv) {
  const std::string name = argc > 2 ? argv[1] : "";
  const auto schedule = static_cast<Schedule>(argc > 2 ? std::atoi(argv[2]) : 0);
  std::vector<int> in(N), out(N);
  std::iota(in.begin(), in.end(), 0);
  launch(name == "no blocks" ? 0 : 1, N, schedule, [&] {
    if (name == "rotate") rotate(in.data(), out.data(), true);
    if (name == "rotate without a barrier") rotate(in.data(), out.data(), false);
    if (name == "rotate twice") rotate_twice(in.data(), out.data(), true);
    if (name == "rotate twice without a barrier") rotate_twice(in.data(), out.data(), false);
    if (name == "read beyond the end") read_beyond(in.data(), out.data(), 1);
    if (name == "read before the start") read_beyond(in.data(), out.data(), -1);
    if (name == "write beyond shared memory") write_beyond_shared(out.data(), 1);
    if (name == "half at the barrier") half_at_the_barrier(out.data());
    if (name == "two barriers") two_barriers(out.data());
    if (name == "half in the shuffle") half_in_the_shuffle(in.data(), out.data());
    if (name == "half before all") half_before_all(in.data(), out.data());
    if (name == "ballot after a return") after_a_return(in.data(), out.data(), false);
    if (name == "shuffle after a return") after_a_return(in.data(), out.data(), true);
    if (name == "aligned load") load_four(in.data(), out.data(), 0);
    if (name == "unaligned load") load_four(in.data(), out.data(), 1);
    if (name == "sum of a warp") sum_of_a_warp(in.data(), out.data());
  });
  for (const int value : out) std::printf("%d ", value);
}
