// Norms of rows, alone or after a residual sum. Included for each instruction set.
#pragma once

#include "decode_maths.h"
#include "ops_abi.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

// RMS norm rounds to the dtype of x before it scales, as its formula says.
template <int Dtype, int Weight, int Out>
inline void norm_row(const NormArguments& a, const Statistics& row, const void* x, void* out) {
  const Floats minus = broadcast(-row.mean), inverse = broadcast(row.inverse);
  const Floats shift = broadcast(-row.mean * row.inverse);
  const int64_t D = a.columns;
  for (int64_t i = 0; i < D; i += kLanes) {
    Floats v = load_row<Dtype>(x, i, D);
    const Floats weight = load_row<Weight>(a.weight, i, D);
    if (a.kind == kRmsNorm) {
      v = multiply(rounded<Dtype>(multiply(v, inverse)), weight);
    } else {
      // of few bits: one rounding, not two; of fp32: right too where the mean is large
      v = Dtype == kFloat32 ? multiply(add(v, minus), inverse) : multiply_add(v, inverse, shift);
      v = multiply_add(v, weight, a.bias ? load_row<Weight>(a.bias, i, D) : zero());
    }
    store_row<Out>(out, i, D, v);
  }
}

template <int X, int Residual, int Stream>
inline void add_row(const void* x, const void* residual, int64_t count, void* stream) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = load_row<X>(x, i, count);
    store_row<Stream>(stream, i, count, add(v, load_row<Residual>(residual, i, count)));
  }
}

// stream = residual + x for one row; sums of one dtype have it, others are fp32.
inline const void* add_residual(const NormArguments& a, int64_t row) {
  const void* x = offset(a.x, a.x_dtype, row * a.x_stride);
  if (!a.residual) return x;
  const void* residual = offset(a.residual, a.residual_dtype, row * a.residual_stride);
  void* stream = offset(a.stream, a.stream_dtype, row * a.columns);
  with_dtype(a.x_dtype, [&](auto x_dtype) {
    with_dtype(a.residual_dtype, [&](auto residual_dtype) {
      constexpr int X = decltype(x_dtype)::value, R = decltype(residual_dtype)::value;
      add_row<X, R, X == R ? X : int{kFloat32}>(x, residual, a.columns, stream);
    });
  });
  return stream;
}

template <int Dtype, int Weight, int Out>
void norm_rows(const NormArguments& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const void* x = add_residual(a, row);
    const Statistics about = statistics<Dtype>(a.kind, x, a.columns, a.eps);
    if (a.means) a.means[row] = about.mean;
    if (a.inverses) a.inverses[row] = about.inverse;
    norm_row<Dtype, Weight, Out>(a, about, x, offset(a.out, Out, row * a.columns));
  }
}

}  // namespace

void norm(const NormArguments& a) {
  const auto rows = [&](int64_t begin, int64_t end) {
    with_dtype(a.residual ? a.stream_dtype : a.x_dtype, [&](auto x_dtype) {
      with_dtype(a.weight_dtype, [&](auto weight_dtype) {
        constexpr int X = decltype(x_dtype)::value, W = decltype(weight_dtype)::value;
        a.out_dtype == X ? norm_rows<X, W, X>(a, begin, end)
                         : norm_rows<X, W, kFloat32>(a, begin, end);
      });
    });
  };
  parallel_for(a.rows, rows_worth_a_thread(a.columns), a.threads, rows);
}

}  // namespace glm::GLM_ISA
