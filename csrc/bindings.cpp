// The Python module fgclip_fast._native. It takes addresses, sizes and dtypes as plain values and knows nothing of
// torch; Python checks every argument before the call. Other Python threads run during a call.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "activation_linear.h"
#include "add_layer_norm.h"
#include "contrastive_loss.h"
#include "dtypes.h"
#include "hard_negative_loss.h"
#include "prefix_tree.h"
#include "region_embedding.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

// A pointer comes from Python as an address, everything else as it is.
template <typename T>
using Passed = std::conditional_t<std::is_pointer_v<T>, std::uintptr_t, T>;

template <typename T>
T received(Passed<T> argument) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(argument);
  } else {
    return argument;
  }
}

// The function with addresses in place of pointers.
template <typename... Argument>
auto by_address(void (*function)(Argument...)) {
  return [function](Passed<Argument>... argument) { function(received<Argument>(argument)...); };
}

// A constructor from the struct's fields in their order, with addresses in place of pointers.
template <typename Struct, typename... Field>
auto from_fields() {
  return py::init([](Passed<Field>... field) { return Struct{received<Field>(field)...}; });
}

// The function of one struct as a function of the struct's fields.
template <typename Struct, typename... Field>
auto by_fields(void (*function)(const Struct&)) {
  return [function](Passed<Field>... field) { function(Struct{received<Field>(field)...}); };
}

using WithoutGil = py::call_guard<py::gil_scoped_release>;

// An array whose size is known only once it is computed, as a buffer that Python can wrap without a copy.
struct Int32s {
  std::vector<int32_t> values;
};

py::list prefix_tree_forward_cpu(std::uintptr_t token, int64_t T0, std::uintptr_t offsets, int64_t M, int64_t shorts,
                                 bool share, int64_t multiple, int32_t eos) {
  fgclip::PrefixTree tree;
  {
    py::gil_scoped_release release;
    tree = fgclip::prefix_tree(received<const int32_t*>(token), T0, received<const int64_t*>(offsets), M, shorts, share,
                               multiple, eos);
  }
  py::list arrays;  // in the order of the fields of Tree in ops/tree.py
  for (auto* array :
       {&tree.token, &tree.position, &tree.end, &tree.pooled, &tree.spine_offsets, &tree.spine, &tree.far_key_offsets,
        &tree.sum_key, &tree.sum_offsets, &tree.far_rows, &tree.query_offsets, &tree.key_offsets, &tree.key}) {
    arrays.append(Int32s{std::move(*array)});
  }
  return arrays;
}

void bind_region_embedding(py::module_& m) {
  using fgclip::RegionShape;
  py::class_<RegionShape>(m, "RegionShape")
      .def(from_fields<RegionShape, int64_t, int64_t, int, int, int, int64_t, int64_t>(), py::kw_only(), "B"_a, "R"_a,
           "H"_a, "W"_a, "C"_a, "image_stride"_a, "token_stride"_a);
  m.def("region_embedding_forward_cpu", by_address(&fgclip::region_embedding_forward_cpu), "tokens"_a, "boxes"_a,
        "image_index"_a, "out"_a, "dtype"_a, "shape"_a, WithoutGil());
  m.def("region_embedding_backward_cpu", by_address(&fgclip::region_embedding_backward_cpu), "grad_out"_a, "boxes"_a,
        "image_index"_a, "grad_tokens"_a, "dtype"_a, "shape"_a, WithoutGil());
#ifdef FGCLIP_CUDA
  m.def("region_embedding_forward_cuda", by_address(&fgclip::region_embedding_forward_cuda), "tokens"_a, "boxes"_a,
        "image_index"_a, "out"_a, "dtype"_a, "shape"_a, "device"_a, "stream"_a, WithoutGil());
  m.def("region_embedding_backward_cuda", by_address(&fgclip::region_embedding_backward_cuda), "grad_out"_a, "boxes"_a,
        "image_index"_a, "grad_tokens"_a, "dtype"_a, "shape"_a, "begin"_a, "order"_a, "weights"_a, "device"_a,
        "stream"_a, WithoutGil());
#endif
}

void bind_hard_negative_loss(py::module_& m) {
  using fgclip::HardNegativeInputs, fgclip::HardNegativeSaved;
  py::class_<HardNegativeInputs>(m, "HardNegativeInputs")
      .def(from_fields<HardNegativeInputs, const void*, const void*, const int64_t*, const void*, int64_t, int64_t>(),
           "regions"_a, "texts"_a, "offsets"_a, "scale"_a, "R"_a, "D"_a);
  py::class_<HardNegativeSaved>(m, "HardNegativeSaved")
      .def(from_fields<HardNegativeSaved, void*, void*, void*>(), "losses"_a, "similarity"_a, "text_inverse"_a);
  m.def("hard_negative_loss_forward_cpu", by_address(&fgclip::hard_negative_loss_forward_cpu), "inputs"_a, "saved"_a,
        "loss"_a, "rank"_a, "dtype"_a, WithoutGil());
  m.def("hard_negative_loss_backward_cpu", by_address(&fgclip::hard_negative_loss_backward_cpu), "grad_loss"_a,
        "inputs"_a, "saved"_a, "grad_regions"_a, "grad_texts"_a, "grad_scale"_a, "dtype"_a, WithoutGil());
}

void bind_contrastive_loss(py::module_& m) {
  using fgclip::LogitsChunk, fgclip::Lse;
  py::class_<LogitsChunk>(m, "LogitsChunk")
      .def(from_fields<LogitsChunk, float*, int64_t, int64_t, float, const float*, const float*, int64_t,
                       const int64_t*, const int64_t*>(),
           "logits"_a, "rows"_a, "columns"_a, "scale"_a, "row_inverse"_a, "column_inverse"_a, "first"_a, "row_ids"_a,
           "column_ids"_a);
  py::class_<Lse>(m, "Lse").def(from_fields<Lse, float*, float*>(), "maximum"_a, "log"_a);
  m.def("contrastive_loss_forward_cpu", by_address(&fgclip::contrastive_loss_forward_cpu), "chunk"_a, "rows"_a,
        "positive"_a, "columns"_a, WithoutGil());
  m.def("contrastive_loss_backward_cpu", by_address(&fgclip::contrastive_loss_backward_cpu), "chunk"_a, "kept"_a,
        "rows"_a, "columns"_a, WithoutGil());
}

void bind_block_ops(py::module_& m) {
  using fgclip::AddLayerNormBackward, fgclip::AddLayerNormForward, fgclip::Dtype;
  m.def("add_layer_norm_forward_cpu",
        by_fields<AddLayerNormForward, const void*, const void*, const float*, const float*, const float*, void*, void*,
                  float*, int64_t, int, float, Dtype, Dtype, Dtype>(&fgclip::add_layer_norm_forward_cpu),
        "residual"_a, "update"_a, "update_bias"_a, "weight"_a, "bias"_a, "total"_a, "normed"_a, "statistics"_a,
        "rows"_a, "width"_a, "eps"_a, "stream"_a, "update_dtype"_a, "normed_dtype"_a, WithoutGil());
  m.def("add_layer_norm_backward_cpu",
        by_fields<AddLayerNormBackward, const void*, const void*, const void*, const float*, const float*, const float*,
                  void*, void*, void*, float*, int64_t, int, Dtype, Dtype, Dtype>(&fgclip::add_layer_norm_backward_cpu),
        "grad_total"_a, "grad_normed"_a, "total"_a, "statistics"_a, "weight"_a, "bias"_a, "grad_residual"_a,
        "grad_other"_a, "normed"_a, "columns"_a, "rows"_a, "width"_a, "stream"_a, "normed_dtype"_a, "other_dtype"_a,
        WithoutGil());
  m.def("activation_linear_forward_cpu", by_address(&fgclip::activation_forward_cpu), "hidden"_a, "bias"_a, "out"_a,
        "rows"_a, "width"_a, "quick"_a, "dtype"_a, WithoutGil());
  m.def("activation_linear_backward_cpu", by_address(&fgclip::activation_backward_cpu), "grad"_a, "hidden"_a, "bias"_a,
        "out"_a, "grad_bias"_a, "rows"_a, "width"_a, "quick"_a, "dtype"_a, WithoutGil());
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled ops of fgclip_fast; users call fgclip_fast.ops.";
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
  py::class_<Int32s>(m, "Int32s", py::buffer_protocol())
      .def("__len__", [](const Int32s& array) { return array.values.size(); })
      .def_buffer([](Int32s& array) {
        return py::buffer_info(array.values.data(), static_cast<py::ssize_t>(array.values.size()));
      });
  bind_region_embedding(m);
  bind_hard_negative_loss(m);
  m.def("prefix_tree_forward_cpu", &prefix_tree_forward_cpu, "token"_a, "T0"_a, "offsets"_a, "M"_a, "shorts"_a,
        "share"_a, "multiple"_a, "eos"_a);
  bind_contrastive_loss(m);
  bind_block_ops(m);
}
