// Python has checked every argument; other Python threads run meanwhile. Addresses and sizes only: no torch here.
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled ops of fgclip_fast; fgclip_fast.ops holds what users call.";
#ifdef FGCLIP_CUDA
  m.attr("cuda") = true;
#else
  m.attr("cuda") = false;
#endif
}
