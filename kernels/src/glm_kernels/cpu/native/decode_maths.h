// Parts of a decode step that work on one row. Included for each instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "decode_abi.h"
#include "vector_maths.h"

namespace glm::GLM_ISA {
namespace {

// out = activation(x) * other, or without `other` when that is null.
template <int Kind>
inline void activate_as(const float* x, const float* other, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = activated<Kind>(load_row<kFloat32>(x, i, count));
    const Floats w = other ? multiply(v, load_row<kFloat32>(other, i, count)) : v;
    store_row<kFloat32>(out, i, count, w);
  }
}

inline void activate(int32_t kind, const float* x, const float* other, int64_t count, float* out) {
  if (kind == kSilu) return activate_as<kSilu>(x, other, count, out);
  if (kind == kGeluQuick) return activate_as<kGeluQuick>(x, other, count, out);
  if (kind == kGeluErf) return activate_as<kGeluErf>(x, other, count, out);
  activate_as<kGeluTanh>(x, other, count, out);
}

// What a norm needs to know of a row.
struct Statistics {
  float mean, inverse;
};

// The sums over a row of x - origin and of its square.
struct RowSums {
  double first, second;
};

template <int Dtype>
inline RowSums row_sums(const void* x, int64_t count, float origin) {
  constexpr int kChains = 4;
  const Floats minus = broadcast(-origin);
  Floats first[kChains], second[kChains];
  for (Floats& s : first) s = zero();
  for (Floats& s : second) s = zero();
  const auto sum_up = [&](int64_t i, int chain) {
    const Floats v = add(load_as<Dtype>(x, i), minus);
    first[chain] = add(first[chain], v);
    second[chain] = multiply_add(v, v, second[chain]);
  };
  int64_t i = 0;
  for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kChains; ++j) sum_up(i + j * kLanes, j);
  }
  for (; i + kLanes <= count; i += kLanes) sum_up(i, 0);
  float rest[kLanes];
  RowSums total{0, 0};
  if (i < count) store(rest, load_row<Dtype>(x, i, count));
  for (int64_t j = 0; i + j < count; ++j) {
    const double v = rest[j] - origin;
    total = {total.first + v, total.second + v * v};
  }
  for (const Floats& s : first) total.first += sum(s);
  for (const Floats& s : second) total.second += sum(s);
  return total;
}

template <int Dtype>
inline Statistics statistics(int32_t norm, const void* x, int64_t count, float eps) {
  const double n = static_cast<double>(count);
  const auto inverse = [&](double variance) {
    return static_cast<float>(1.0 / std::sqrt(variance + double{eps}));
  };
  if (norm == kRmsNorm) return {0, inverse(row_sums<Dtype>(x, count, 0).second / n)};
  const float near = static_cast<float>(row_sums<Dtype>(x, count, 0).first / n);
  const RowSums sums = row_sums<Dtype>(x, count, near);
  // What rounding left out of the mean. Differences of few bits are all rounded the same way, and
  // their mean is off; their sum is not.
  const double rest = Dtype == kFloat32 ? sums.first / n : 0;
  return {static_cast<float>(near + rest), inverse(sums.second / n - rest * rest)};
}

// out = the norm of x, columns [begin, begin + count).
inline void normalize(const NormWeights& norm, const Statistics& row, const float* x, int64_t begin,
                      int64_t count, float* out) {
  const float* weight = norm.weight + begin;
  for (int64_t i = 0; i < count; ++i) out[i] = (x[begin + i] - row.mean) * row.inverse * weight[i];
  for (int64_t i = 0; norm.bias && i < count; ++i) out[i] += norm.bias[begin + i];
}

template <bool Interleaved>
inline void rotate_pairs_as(float* x, const float* cosines, const float* sines, int64_t pairs,
                            float sign) {
  const int64_t step = Interleaved ? 2 : 1, apart = Interleaved ? 1 : pairs;
  for (int64_t i = 0; i < pairs; ++i) {
    float &a = x[i * step], &b = x[i * step + apart];
    const float sine = sign * sines[i], first = a * cosines[i] - b * sine;
    b = b * cosines[i] + a * sine;
    a = first;
  }
}

// Rotates `pairs` pairs of x, i with i + pairs, or 2i with 2i + 1; back where sign is -1.
inline void rotate_pairs(float* x, const float* cosines, const float* sines, int64_t pairs,
                         bool interleaved, float sign = 1) {
  if (interleaved) return rotate_pairs_as<true>(x, cosines, sines, pairs, sign);
  rotate_pairs_as<false>(x, cosines, sines, pairs, sign);
}

// Rotates a head by its text's place.
inline void rotate(const DecodeModel& m, const int64_t* place, float* head) {
  if (m.rope == kNoRope) return;
  const int64_t at = place[0] * m.pairs, block = place[1] * m.pairs;
  rotate_pairs(head, m.cosines + at, m.sines + at, m.pairs, m.rope == kRopeInterleaved);
  if (m.rope == kRope2d) {
    rotate_pairs(head + m.head_dim / 2, m.cosines + block, m.sines + block, m.pairs, false);
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
