// Python has checked every argument; other Python threads run meanwhile. Addresses and sizes only: no torch here.
#include <pybind11/pybind11.h>

#include "activation_linear.h"
#include "add_layer_norm.h"
#include "contrastive_loss.h"
#include "hard_negative_loss.h"
#include "prefix_tree.h"
#include "region_embedding.h"

namespace py = pybind11;
using namespace pybind11::literals;
using std::uintptr_t;

namespace {

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// The size of a tree is known only once it is built: its arrays go to Python as buffers.
struct Int32s {
  std::vector<int32_t> values;
};

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
      .value("float16", fgclip::Dtype::float16)
      .value("float64", fgclip::Dtype::float64);

  py::class_<fgclip::RegionShape>(m, "RegionShape")
      .def(py::init([](int64_t B, int64_t R, int H, int W, int C, int64_t image_stride, int64_t token_stride) {
             return fgclip::RegionShape{B, R, H, W, C, image_stride, token_stride};
           }),
           py::kw_only(), "B"_a, "R"_a, "H"_a, "W"_a, "C"_a, "image_stride"_a, "token_stride"_a);
  m.def(
      "region_embedding_forward_cpu",
      [](uintptr_t tokens, uintptr_t boxes, uintptr_t image_index, uintptr_t out, fgclip::Dtype dtype,
         const fgclip::RegionShape& shape) {
        fgclip::region_embedding_forward_cpu(at<void>(tokens), at<float>(boxes), at<int64_t>(image_index),
                                             at<void>(out), dtype, shape);
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
#ifdef FGCLIP_CUDA
  m.def(
      "region_embedding_forward_cuda",
      [](uintptr_t tokens, uintptr_t boxes, uintptr_t image_index, uintptr_t out, fgclip::Dtype dtype,
         const fgclip::RegionShape& shape, int device, uintptr_t stream) {
        fgclip::region_embedding_forward_cuda(at<void>(tokens), at<float>(boxes), at<int64_t>(image_index),
                                              at<void>(out), dtype, shape, device, at<void>(stream));
      },
      "tokens"_a, "boxes"_a, "image_index"_a, "out"_a, "dtype"_a, "shape"_a, "device"_a, "stream"_a,
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "region_embedding_backward_cuda",
      [](uintptr_t grad_out, uintptr_t boxes, uintptr_t image_index, uintptr_t grad_tokens, fgclip::Dtype dtype,
         const fgclip::RegionShape& shape, uintptr_t begin, uintptr_t order, uintptr_t weights, int device,
         uintptr_t stream) {
        fgclip::region_embedding_backward_cuda(at<void>(grad_out), at<float>(boxes), at<int64_t>(image_index),
                                               at<void>(grad_tokens), dtype, shape, at<int64_t>(begin),
                                               at<int64_t>(order), at<float>(weights), device, at<void>(stream));
      },
      "grad_out"_a, "boxes"_a, "image_index"_a, "grad_tokens"_a, "dtype"_a, "shape"_a, "begin"_a, "order"_a,
      "weights"_a, "device"_a, "stream"_a, py::call_guard<py::gil_scoped_release>());
#endif

  py::class_<fgclip::HardNegativeInputs>(m, "HardNegativeInputs")
      .def(py::init([](uintptr_t regions, uintptr_t texts, uintptr_t offsets, uintptr_t scale, int64_t R, int64_t D) {
             return fgclip::HardNegativeInputs{
                 at<void>(regions), at<void>(texts), at<int64_t>(offsets), at<void>(scale), R, D};
           }),
           "regions"_a, "texts"_a, "offsets"_a, "scale"_a, "R"_a, "D"_a);
  py::class_<fgclip::HardNegativeSaved>(m, "HardNegativeSaved")
      .def(py::init([](uintptr_t losses, uintptr_t similarity, uintptr_t text_inverse) {
             return fgclip::HardNegativeSaved{at<void>(losses), at<void>(similarity), at<void>(text_inverse)};
           }),
           "losses"_a, "similarity"_a, "text_inverse"_a);
  m.def(
      "hard_negative_loss_forward_cpu",
      [](const fgclip::HardNegativeInputs& inputs, const fgclip::HardNegativeSaved& saved, uintptr_t loss,
         uintptr_t rank, fgclip::Dtype dtype) {
        fgclip::hard_negative_loss_forward_cpu(inputs, saved, at<void>(loss), at<int64_t>(rank), dtype);
      },
      "inputs"_a, "saved"_a, "loss"_a, "rank"_a, "dtype"_a, py::call_guard<py::gil_scoped_release>());
  m.def(
      "hard_negative_loss_backward_cpu",
      [](uintptr_t grad_loss, const fgclip::HardNegativeInputs& inputs, const fgclip::HardNegativeSaved& saved,
         uintptr_t grad_regions, uintptr_t grad_texts, uintptr_t grad_scale, fgclip::Dtype dtype) {
        fgclip::hard_negative_loss_backward_cpu(at<void>(grad_loss), inputs, saved, at<void>(grad_regions),
                                                at<void>(grad_texts), at<void>(grad_scale), dtype);
      },
      "grad_loss"_a, "inputs"_a, "saved"_a, "grad_regions"_a, "grad_texts"_a, "grad_scale"_a, "dtype"_a,
      py::call_guard<py::gil_scoped_release>());
  py::class_<Int32s>(m, "Int32s", py::buffer_protocol())
      .def("__len__", [](const Int32s& array) { return array.values.size(); })
      .def_buffer([](Int32s& array) {
        return py::buffer_info(array.values.data(), static_cast<py::ssize_t>(array.values.size()));
      });
  m.def(
      "prefix_tree_forward_cpu",
      [](std::uintptr_t token, int64_t T0, std::uintptr_t offsets, int64_t M, int64_t shorts, bool share,
         int64_t multiple, int32_t eos) {
        fgclip::PrefixTree tree;
        {
          py::gil_scoped_release release;
          tree = fgclip::prefix_tree(reinterpret_cast<const int32_t*>(token), T0,
                                     reinterpret_cast<const int64_t*>(offsets), M, shorts, share, multiple, eos);
        }
        py::list arrays;  // in the order of ops/tree.py's Tree
        for (auto* array : {&tree.token, &tree.position, &tree.end, &tree.pooled, &tree.spine_offsets, &tree.spine,
                            &tree.far_key_offsets, &tree.sum_key, &tree.sum_offsets, &tree.far_rows,
                            &tree.query_offsets, &tree.key_offsets, &tree.key}) {
          arrays.append(Int32s{std::move(*array)});
        }
        return arrays;
      },
      "token"_a, "T0"_a, "offsets"_a, "M"_a, "shorts"_a, "share"_a, "multiple"_a, "eos"_a);

  py::class_<fgclip::LogitsChunk>(m, "LogitsChunk")
      .def(py::init([](uintptr_t logits, int64_t rows, int64_t columns, float scale, uintptr_t row_inverse,
                       uintptr_t column_inverse, int64_t first, uintptr_t row_ids, uintptr_t column_ids) {
             return fgclip::LogitsChunk{at<float>(logits),
                                        rows,
                                        columns,
                                        scale,
                                        at<float>(row_inverse),
                                        at<float>(column_inverse),
                                        first,
                                        at<int64_t>(row_ids),
                                        at<int64_t>(column_ids)};
           }),
           "logits"_a, "rows"_a, "columns"_a, "scale"_a, "row_inverse"_a, "column_inverse"_a, "first"_a, "row_ids"_a,
           "column_ids"_a);
  py::class_<fgclip::Lse>(m, "Lse").def(
      py::init([](uintptr_t maximum, uintptr_t log) { return fgclip::Lse{at<float>(maximum), at<float>(log)}; }),
      "maximum"_a, "log"_a);
  m.def(
      "contrastive_loss_forward_cpu",
      [](const fgclip::LogitsChunk& chunk, fgclip::Lse rows, uintptr_t positive, fgclip::Lse columns) {
        fgclip::contrastive_loss_forward_cpu(chunk, rows, at<float>(positive), columns);
      },
      "chunk"_a, "rows"_a, "positive"_a, "columns"_a, py::call_guard<py::gil_scoped_release>());
  m.def("contrastive_loss_backward_cpu", &fgclip::contrastive_loss_backward_cpu, "chunk"_a, "kept"_a, "rows"_a,
        "columns"_a, py::call_guard<py::gil_scoped_release>());

  m.def(
      "add_layer_norm_forward_cpu",
      [](uintptr_t residual, uintptr_t update, uintptr_t update_bias, uintptr_t weight, uintptr_t bias, uintptr_t total,
         uintptr_t normed, uintptr_t statistics, int64_t rows, int width, float eps, fgclip::Dtype stream,
         fgclip::Dtype update_dtype, fgclip::Dtype normed_dtype) {
        const fgclip::AddLayerNormForward call{at<void>(residual),
                                               at<void>(update),
                                               at<float>(update_bias),
                                               at<float>(weight),
                                               at<float>(bias),
                                               at<void>(total),
                                               at<void>(normed),
                                               at<float>(statistics),
                                               eps,
                                               stream,
                                               update_dtype,
                                               normed_dtype};
        fgclip::add_layer_norm_forward_cpu(call, {rows, width});
      },
      "residual"_a, "update"_a, "update_bias"_a, "weight"_a, "bias"_a, "total"_a, "normed"_a, "statistics"_a, "rows"_a,
      "width"_a, "eps"_a, "stream"_a, "update_dtype"_a, "normed_dtype"_a, py::call_guard<py::gil_scoped_release>());
  m.def(
      "layer_norm_again_cpu",
      [](uintptr_t total, uintptr_t statistics, uintptr_t weight, uintptr_t bias, uintptr_t normed, int64_t rows,
         int width, fgclip::Dtype stream, fgclip::Dtype normed_dtype) {
        const fgclip::LayerNormAgain call{at<void>(total), at<float>(statistics), at<float>(weight),
                                          at<float>(bias), at<void>(normed),      stream,
                                          normed_dtype};
        fgclip::layer_norm_again_cpu(call, {rows, width});
      },
      "total"_a, "statistics"_a, "weight"_a, "bias"_a, "normed"_a, "rows"_a, "width"_a, "stream"_a, "normed_dtype"_a,
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "add_layer_norm_backward_cpu",
      [](uintptr_t grad_total, uintptr_t grad_normed, uintptr_t total, uintptr_t statistics, uintptr_t weight,
         uintptr_t grad_residual, uintptr_t grad_other, uintptr_t columns, int64_t rows, int width,
         fgclip::Dtype stream, fgclip::Dtype normed_dtype, fgclip::Dtype other_dtype) {
        const fgclip::AddLayerNormBackward call{at<void>(grad_total),
                                                at<void>(grad_normed),
                                                at<void>(total),
                                                at<float>(statistics),
                                                at<float>(weight),
                                                at<void>(grad_residual),
                                                at<void>(grad_other),
                                                at<float>(columns),
                                                stream,
                                                normed_dtype,
                                                other_dtype};
        fgclip::add_layer_norm_backward_cpu(call, {rows, width});
      },
      "grad_total"_a, "grad_normed"_a, "total"_a, "statistics"_a, "weight"_a, "grad_residual"_a, "grad_other"_a,
      "columns"_a, "rows"_a, "width"_a, "stream"_a, "normed_dtype"_a, "other_dtype"_a,
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "activation_linear_forward_cpu",
      [](uintptr_t hidden, uintptr_t bias, uintptr_t out, int64_t rows, int width, fgclip::Dtype dtype) {
        fgclip::activation_forward_cpu(at<void>(hidden), at<float>(bias), at<void>(out), rows, width, dtype);
      },
      "hidden"_a, "bias"_a, "out"_a, "rows"_a, "width"_a, "dtype"_a, py::call_guard<py::gil_scoped_release>());
  m.def(
      "activation_linear_backward_cpu",
      [](uintptr_t grad, uintptr_t hidden, uintptr_t bias, uintptr_t out, uintptr_t grad_bias, int64_t rows, int width,
         fgclip::Dtype dtype) {
        fgclip::activation_backward_cpu(at<void>(grad), at<void>(hidden), at<float>(bias), at<void>(out),
                                        at<float>(grad_bias), rows, width, dtype);
      },
      "grad"_a, "hidden"_a, "bias"_a, "out"_a, "grad_bias"_a, "rows"_a, "width"_a, "dtype"_a,
      py::call_guard<py::gil_scoped_release>());
}
