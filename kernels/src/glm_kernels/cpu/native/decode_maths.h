// Element-wise parts of a decode step; loops over these vectorize. Included for each instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#include "decode_abi.h"
#include "half.h"

namespace glm::GLM_ISA {
namespace {

// e^x with a relative error below 2e-7. Source: the polynomial of the Cephes library's expf.
inline float exponential(float x) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the last bits
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const int32_t power = static_cast<int32_t>(as_bits(shifted)) - 0x4b400000;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return (p * r * r + r + 1.0f) * as_float(static_cast<uint32_t>(power + 127) << 23);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

template <int Kind>
inline float activated(float x) {
  if (Kind == kSilu) return x * sigmoid(x);
  if (Kind == kGeluQuick) return x * sigmoid(1.702f * x);
  if (Kind == kGeluErf) return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
  // 1 + tanh(y) = 2 sigmoid(2y)
  return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x));
}

template <int Kind>
inline void activate_as(const float* x, const float* other, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = other ? activated<Kind>(x[i]) * other[i] : activated<Kind>(x[i]);
  }
}

// out = activation(x) * other, or without `other` when that is null.
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

inline float lane_sum(const float* x, int64_t count, float mean, bool squared) {
  float lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      const float v = x[i + j] - mean;
      lanes[j] += squared ? v * v : v;
    }
  }
  float total = 0;
  for (; i < count; ++i) total += squared ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
  for (float lane : lanes) total += lane;
  return total;
}

inline Statistics statistics(int32_t norm, const float* x, int64_t count, float eps) {
  const float n = static_cast<float>(count);
  const float mean = norm == kLayerNorm ? lane_sum(x, count, 0, false) / n : 0;
  return {mean, 1.0f / std::sqrt(lane_sum(x, count, mean, true) / n + eps)};
}

// out = the norm of x, columns [begin, begin + count).
inline void normalize(const NormWeights& norm, const Statistics& row, const float* x, int64_t begin,
                      int64_t count, float* out) {
  const float* weight = norm.weight + begin;
  for (int64_t i = 0; i < count; ++i) out[i] = (x[begin + i] - row.mean) * row.inverse * weight[i];
  for (int64_t i = 0; norm.bias && i < count; ++i) out[i] += norm.bias[begin + i];
}

// Rotates `pairs` pairs of x: i with i + pairs, or 2i with 2i + 1.
inline void rotate_pairs(float* x, const float* cosines, const float* sines, int64_t pairs,
                         bool interleaved) {
  const int64_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : pairs;
  for (int64_t i = 0; i < pairs; ++i) {
    float &a = x[i * step], &b = x[i * step + apart];
    const float first = a * cosines[i] - b * sines[i];
    b = b * cosines[i] + a * sines[i];
    a = first;
  }
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
