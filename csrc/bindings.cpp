// Python has checked every argument; other Python threads run meanwhile. Addresses and sizes only: no torch here.
#include <pybind11/pybind11.h>

#include "prefix_tree.h"

namespace py = pybind11;
using namespace py::literals;

// The size of a tree is known only once it is built: its arrays go to Python as buffers.
struct Int32s {
  std::vector<int32_t> values;
};

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled ops of fgclip_fast; fgclip_fast.ops holds what users call.";
#ifdef FGCLIP_CUDA
  m.attr("cuda") = true;
#else
  m.attr("cuda") = false;
#endif

  py::class_<Int32s>(m, "Int32s", py::buffer_protocol())
      .def("__len__", [](const Int32s& array) { return array.values.size(); })
      .def_buffer([](Int32s& array) {
        return py::buffer_info(array.values.data(), static_cast<py::ssize_t>(array.values.size()));
      });
  m.def("prefix_tree_forward_cpu",
        [](std::uintptr_t token, int64_t T0, std::uintptr_t offsets, int64_t M, int64_t shorts, bool share,
           int64_t multiple, int32_t eos) {
          fgclip::PrefixTree tree;
          {
            py::gil_scoped_release release;
            tree = fgclip::prefix_tree(reinterpret_cast<const int32_t*>(token), T0,
                                       reinterpret_cast<const int64_t*>(offsets), M, shorts, share, multiple, eos);
          }
          py::list arrays;  // in the order of ops/prefix_tree.py's Tree
          for (auto* array : {&tree.token, &tree.position, &tree.end, &tree.pooled, &tree.spine_offsets, &tree.spine,
                              &tree.wide_offsets, &tree.wide, &tree.sum_key, &tree.sum_offsets, &tree.sum_row,
                              &tree.query_offsets, &tree.key_offsets, &tree.key}) {
            arrays.append(Int32s{std::move(*array)});
          }
          return arrays;
        },
        "token"_a, "T0"_a, "offsets"_a, "M"_a, "shorts"_a, "share"_a, "multiple"_a, "eos"_a);
}
