// Runs CUDA kernels on a CPU: a small model of CUDA's execution, so that indexing, edges and barriers are tested
// without a GPU.
//
// Each thread is a fibre; blocks run one at a time. A fibre runs until it waits at a barrier or a warp operation, or
// returns. The schedule chooses the order of the fibres: if a result depends on it, a barrier is missing. Compile with
// -fsanitize=address,undefined, which reports accesses out of bounds and misaligned vector loads. Any fault ends the
// process with a message.
//
// Not modelled: races between blocks, atomics, asynchronous copies, tensor cores. `extern __shared__` needs a fixed
// size here. Shared memory begins as zeros and keeps its values from block to block, so a missing initialisation is not
// found.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ inline
#define __device__ inline
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace cuda_on_cpu {

constexpr int warp_size = 32;
constexpr size_t stack_bytes = 32 << 10;
enum class Schedule { ascending, descending, shuffled };
enum class State { ready, at_barrier, at_warp_operation, returned };

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "cuda_on_cpu: block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, what.c_str());
  std::_Exit(1);
}

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(stack_bytes);
  State state;
  unsigned mask;              // of the warp operation that it waits at
  int line;                   // where it waits
  uint64_t value;             // what it shows there
  uint64_t shown[warp_size];  // what the lanes of its last warp operation showed
  unsigned lanes;             // those that showed something
};

inline std::vector<Thread> threads;
inline int current, count;
inline ucontext_t scheduler;
inline std::function<void()> kernel;

inline void switch_context(ucontext_t* from, ucontext_t* to) {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, to->uc_stack.ss_sp, to->uc_stack.ss_size);
  swapcontext(from, to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  swapcontext(from, to);
#endif
}

inline void wait(State state, unsigned mask, int line) {
  Thread& me = threads[current];
  me.state = state, me.mask = mask, me.line = line;
  switch_context(&me.context, &scheduler);
}

inline void run_thread() {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  scheduler.uc_stack.ss_sp = const_cast<void*>(bottom), scheduler.uc_stack.ss_size = size;
#endif
  kernel();
  wait(State::returned, 0, 0);
}

// Lets a warp go on if all lanes that its lanes wait for have come to the same operation or returned.
inline bool release_warp(int first) {
  const int last = std::min(first + warp_size, count);
  bool released = false;
  for (int t = first; t < last; ++t) {
    const Thread& mine = threads[t];
    if (mine.state != State::at_warp_operation) continue;
    if (!(mine.mask >> (t - first) & 1u)) fail("line " + std::to_string(mine.line) + ": a lane is not in its own mask");
    bool complete = true;
    for (int other = first; other < last; ++other)
      if (mine.mask >> (other - first) & 1u && threads[other].state != State::returned)
        complete = complete && threads[other].state == State::at_warp_operation && threads[other].mask == mine.mask &&
                   threads[other].line == mine.line;
    if (!complete) continue;
    const unsigned mask = mine.mask;
    std::vector<int> together;
    for (int other = first; other < last; ++other)
      if (mask >> (other - first) & 1u && threads[other].state != State::returned) together.push_back(other);
    for (const int reader : together) {
      threads[reader].state = State::ready, threads[reader].lanes = 0;
      for (const int other : together) {
        threads[reader].shown[other - first] = threads[other].value;
        threads[reader].lanes |= 1u << (other - first);
      }
    }
    released = true;
  }
  return released;
}

inline std::string where(const Thread& thread) {
  if (thread.state == State::returned) return " has returned";
  const char* kind = thread.state == State::at_barrier ? " waits at the barrier" : " waits at the warp operation";
  return kind + (" in line " + std::to_string(thread.line));
}

// Called when no warp can run: lets all threads pass the barrier that they wait at; false when all have returned.
inline bool release_block() {
  int first = 0;
  while (first < count && threads[first].state == State::returned) ++first;
  if (first == count) return false;
  for (int t = 0; t < count; ++t)
    if (threads[t].state != threads[first].state || threads[t].line != threads[first].line)
      fail("thread " + std::to_string(first) + where(threads[first]) + " in vain: thread " + std::to_string(t) +
           where(threads[t]));
  if (threads[first].state != State::at_barrier) fail("the lanes of a warp give different masks");
  for (int t = 0; t < count; ++t) threads[t].state = State::ready;
  return true;
}

inline void start_threads() {
  for (int t = 0; t < count; ++t) {
    Thread& thread = threads[t];
    thread.state = State::ready;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data(), thread.context.uc_stack.ss_size = stack_bytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
  }
}

// Runs one warp after another, each as far as it can go: only a barrier keeps a warp from running ahead of the others.
inline void run_block(const std::vector<int>& warps, const std::vector<int>& lanes) {
  start_threads();
  do {
    for (const int warp : warps) do {
        for (const int lane : lanes) {
          const int t = warp * warp_size + lane;
          if (t >= count || threads[t].state != State::ready) continue;
          current = t;
          threadIdx = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y));
          switch_context(&scheduler, &threads[t].context);
        }
      } while (release_warp(warp * warp_size));
  } while (release_block());
}

inline std::vector<int> in_order(int size, Schedule schedule) {
  std::vector<int> order(size);
  std::iota(order.begin(), order.end(), 0);
  if (schedule == Schedule::descending) std::reverse(order.begin(), order.end());
  return order;
}

// kernel<<<grid, block>>>(…) is launch(grid, block, schedule, [&] { kernel(…); }).
inline void launch(dim3 grid, dim3 block, Schedule schedule, std::function<void()> body) {
  gridDim = grid, blockDim = block, kernel = std::move(body);
  count = static_cast<int>(block.x * block.y * block.z);
  if (count < 1 || count > 1024 || grid.x * grid.y * grid.z == 0 || grid.y > 65535 || grid.z > 65535)
    fail("a GPU refuses this launch");
  if (threads.size() < static_cast<size_t>(count)) threads = std::vector<Thread>(count);
  auto warps = in_order((count + warp_size - 1) / warp_size, schedule), lanes = in_order(warp_size, schedule);
  std::mt19937 random(0);
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        if (schedule == Schedule::shuffled) {
          std::shuffle(warps.begin(), warps.end(), random);
          std::shuffle(lanes.begin(), lanes.end(), random);
        }
        run_block(warps, lanes);
      }
}

// What the lanes of a warp operation showed.
template <typename T>
struct Shown {
  bool by(int lane) const { return threads[current].lanes >> lane & 1u; }
  T operator()(int lane) const {
    if (lane < 0 || lane >= warp_size || !(threads[current].mask >> lane & 1u)) fail("a lane outside the mask is read");
    if (!by(lane)) fail("a lane that has returned is read");
    T value;
    std::memcpy(&value, &threads[current].shown[lane], sizeof(T));
    return value;
  }
};

template <typename T>
Shown<T> exchange(unsigned mask, T value, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  std::memcpy(&threads[current].value, &value, sizeof(T));
  wait(State::at_warp_operation, mask, line);
  return {};
}

inline int lane() { return current % warp_size; }

}  // namespace cuda_on_cpu

inline void __syncthreads(int line = __builtin_LINE()) { cuda_on_cpu::wait(cuda_on_cpu::State::at_barrier, 0, line); }

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  cuda_on_cpu::exchange(mask, 0, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int line = __builtin_LINE()) {
  return cuda_on_cpu::exchange(mask, value, line)(from % cuda_on_cpu::warp_size);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int line = __builtin_LINE()) {
  return cuda_on_cpu::exchange(mask, value, line)(cuda_on_cpu::lane() ^ bits);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, int by, int line = __builtin_LINE()) {
  const int from = cuda_on_cpu::lane() + by;
  return cuda_on_cpu::exchange(mask, value, line)(from < cuda_on_cpu::warp_size ? from : cuda_on_cpu::lane());
}

inline unsigned __ballot_sync(unsigned mask, bool holds, int line = __builtin_LINE()) {
  const auto shown = cuda_on_cpu::exchange(mask, holds, line);
  unsigned lanes = 0;
  for (int lane = 0; lane < cuda_on_cpu::warp_size; ++lane)
    if (shown.by(lane)) lanes |= static_cast<unsigned>(shown(lane)) << lane;
  return lanes;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
