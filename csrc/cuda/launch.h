// Support for kernel launches: the current device for the duration of a call, and exceptions for CUDA errors.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace fgclip {

inline void check_cuda(cudaError_t error, const char* who) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(who) + ": CUDA: " + cudaGetErrorString(error));
}

class OnDevice {
 public:
  OnDevice(int device, const char* who) {
    check_cuda(cudaGetDevice(&previous_), who);
    check_cuda(cudaSetDevice(device), who);
  }
  ~OnDevice() { cudaSetDevice(previous_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace fgclip
