// Rotary embedding of queries or keys. Included for each instruction set.
#pragma once

#include "decode_maths.h"
#include "ops_abi.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kMostRopeDim = 1024;  // of a head: it is rotated on the stack

template <int Dtype>
void rope_columns(const RopeArguments& a, int64_t begin, int64_t end) {
  const int64_t H = a.head_dim;
  float buffer[kMostRopeDim];
  for (int64_t at = begin; at < end; ++at) {
    const int64_t row = at / a.length, column = at % a.length;
    const int64_t table = row * a.table_row + column * a.table_column;
    const int64_t block = row * a.block_row + column * a.block_column;
    for (int64_t n = 0; n < a.heads; ++n) {
      const int64_t from = row * a.x_row + column * a.x_column + n * a.x_head;
      void* out = offset(a.out, Dtype, (at * a.heads + n) * H);
      float* head = Dtype == kFloat32 ? static_cast<float*>(out) : buffer;
      const float* x = widened<Dtype>(offset(a.x, Dtype, from), H, buffer);
      if (x != head) std::memcpy(head, x, H * sizeof(float));
      rotate_pairs(head, a.cosines + table, a.sines + table, a.pairs, a.interleaved, a.sign);
      if (a.block_cosines) {
        rotate_pairs(head + 2 * a.pairs, a.block_cosines + block, a.block_sines + block, a.pairs,
                     a.interleaved, a.sign);
      }
      if (Dtype != kFloat32) narrow<Dtype>(head, H, out);
    }
  }
}

}  // namespace

void rope(const RopeArguments& a) {
  parallel_for(a.batch * a.length, rows_worth_a_thread(a.heads * a.head_dim), a.threads,
               [&](int64_t begin, int64_t end) {
                 with_dtype(a.dtype, [&](auto dtype) {
                   rope_columns<decltype(dtype)::value>(a, begin, end);
                 });
               });
}

}  // namespace glm::GLM_ISA
