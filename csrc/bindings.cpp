// Python has checked every argument; other Python threads run meanwhile. Addresses and sizes only: no torch here.
#include <pybind11/pybind11.h>

#include "contrastive_loss.h"
#include "region_embedding.h"

namespace py = pybind11;
using namespace pybind11::literals;
using std::uintptr_t;

namespace {

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled ops of fgclip_fast; fgclip_fast.ops holds what users call.";
#ifdef FGCLIP_CUDA
  m.attr("cuda") = true;
#else
  m.attr("cuda") = false;
#endif

  py::enum_<fgclip::Dtype>(m, "Dtype")
      .value("float32", fgclip::Dtype::float32)
      .value("bfloat16", fgclip::Dtype::bfloat16)
      .value("float16", fgclip::Dtype::float16);

  py::class_<fgclip::RegionShape>(m, "RegionShape")
      .def(py::init([](int64_t B, int64_t R, int H, int W, int C, int64_t image_stride, int64_t token_stride) {
             return fgclip::RegionShape{B, R, H, W, C, image_stride, token_stride};
           }),
           py::kw_only(), "B"_a, "R"_a, "H"_a, "W"_a, "C"_a, "image_stride"_a, "token_stride"_a);
  m.def(
      "region_embedding_forward_cpu",
      [](uintptr_t tokens, uintptr_t boxes, uintptr_t image_index, uintptr_t out, fgclip::Dtype dtype,
         const fgclip::RegionShape& shape) {
        fgclip::region_embedding_forward_cpu(at<void>(tokens), at<float>(boxes), at<int64_t>(image_index), at<void>(out),
                                             dtype, shape);
      },
      "tokens"_a, "boxes"_a, "image_index"_a, "out"_a, "dtype"_a, "shape"_a, py::call_guard<py::gil_scoped_release>());
  m.def(
      "region_embedding_backward_cpu",
      [](uintptr_t grad_out, uintptr_t boxes, uintptr_t image_index, uintptr_t grad_tokens, fgclip::Dtype dtype,
         const fgclip::RegionShape& shape) {
        fgclip::region_embedding_backward_cpu(at<void>(grad_out), at<float>(boxes), at<int64_t>(image_index),
                                              at<void>(grad_tokens), dtype, shape);
      },
      "grad_out"_a, "boxes"_a, "image_index"_a, "grad_tokens"_a, "dtype"_a, "shape"_a,
      py::call_guard<py::gil_scoped_release>());

  py::class_<fgclip::LogitsChunk>(m, "LogitsChunk")
      .def(py::init([](uintptr_t logits, int64_t rows, int64_t columns, float scale, int64_t first, uintptr_t row_ids,
                       uintptr_t column_ids) {
             return fgclip::LogitsChunk{at<float>(logits), rows, columns, scale, first, at<int64_t>(row_ids),
                                        at<int64_t>(column_ids)};
           }),
           "logits"_a, "rows"_a, "columns"_a, "scale"_a, "first"_a, "row_ids"_a, "column_ids"_a);
  py::class_<fgclip::Lse>(m, "Lse")
      .def(py::init([](uintptr_t maximum, uintptr_t log) { return fgclip::Lse{at<float>(maximum), at<float>(log)}; }),
           "maximum"_a, "log"_a);
  m.def(
      "contrastive_loss_forward_cpu",
      [](const fgclip::LogitsChunk& chunk, fgclip::Lse rows, uintptr_t positive, fgclip::Lse columns) {
        fgclip::contrastive_loss_forward_cpu(chunk, rows, at<float>(positive), columns);
      },
      "chunk"_a, "rows"_a, "positive"_a, "columns"_a, py::call_guard<py::gil_scoped_release>());
  m.def("contrastive_loss_backward_cpu", &fgclip::contrastive_loss_backward_cpu, "chunk"_a, "kept"_a, "rows"_a,
        "columns"_a, py::call_guard<py::gil_scoped_release>());
}
