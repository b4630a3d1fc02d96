// Products with matrices that are not quantized. Included for each instruction set.
#pragma once

#include "decode_attention.h"

namespace glm::GLM_ISA {
namespace {

constexpr int kPlainRows = 4;      // rows of a plain matrix worked on at once
constexpr int64_t kPlainAhead = 512;  // numbers fetched ahead in every row
constexpr int64_t kPlainTile = 8;  // rows of x whose products are kept at once

// The products of four rows of a plain matrix, from `row` on, with `Rows` rows of x. Where there are
// but `count` of the matrix, the rest repeats the first.
template <int Dtype, int Rows>
inline void multiply_plain(const Matrix& m, int64_t row, int64_t count, const float* x,
                           float (*out)[kPlainRows]) {
  const int64_t K = m.in_features;
  int64_t at[kPlainRows];
  for (int j = 0; j < kPlainRows; ++j) at[j] = (row + (j < count ? j : 0)) * K;
  Floats sums[Rows * kPlainRows];
#pragma GCC unroll 16
  for (Floats& s : sums) s = zero();
  for (int64_t i = 0; i < K; i += 16) {
    Floats w[kPlainRows];
#pragma GCC unroll 4
    for (int j = 0; j < kPlainRows; ++j) {
      w[j] = load_as<Dtype>(m.values, at[j] + i);
      fetch<Dtype>(m.values, at[j] + i + kPlainAhead);
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const Floats v = load_floats(x + r * K + i);
#pragma GCC unroll 4
      for (int j = 0; j < kPlainRows; ++j) {
        sums[r * kPlainRows + j] = multiply_add(w[j], v, sums[r * kPlainRows + j]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) store_sums(sums + r * kPlainRows, out[r]);
}

// The same with any number of rows of x, as many at once as registers have room for.
template <int Dtype, int Rows = kBeside<kPlainRows>>
inline void multiply_plain_rows(const Matrix& m, int64_t row, int64_t count, const float* x,
                                int64_t rows, float (*out)[kPlainRows]) {
  for (; rows >= Rows; rows -= Rows, x += Rows * m.in_features, out += Rows) {
    multiply_plain<Dtype, Rows>(m, row, count, x, out);
  }
  if constexpr (Rows > 1) multiply_plain_rows<Dtype, Rows - 1>(m, row, count, x, rows, out);
}

}  // namespace
}  // namespace glm::GLM_ISA
