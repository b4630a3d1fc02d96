// Sixteen lanes, one for each row of a block, in plain C++: for every processor.
#pragma once

#include <cstdint>

#include "half.h"

namespace glm::GLM_ISA {
namespace {

struct Bytes {
  uint8_t v[64];
};
struct Ints {
  int32_t v[16];
};
using Four = const int8_t*;
struct Floats {
  float v[16];
};

constexpr int kTileRows = 2;
constexpr int kSingleRowBlocks = 1;  // blocks worked on at once for one row of x
constexpr int kPairRows = 0;  // two for up to so many rows
constexpr int kSums = 4;  // fp32 sums kept at once
constexpr int kByteOffset = 0;

template <typename Vector, typename Function>
inline Vector each(const Function& function) {
  Vector out;
  for (int i = 0; i < int(sizeof(out.v) / sizeof(out.v[0])); ++i) out.v[i] = function(i);
  return out;
}

inline Bytes load(const uint8_t* p) {
  return each<Bytes>([&](int i) { return p[i]; });
}
inline Bytes low(const Bytes& b) {
  return each<Bytes>([&](int i) { return uint8_t(b.v[i] & 15); });
}
inline Bytes high(const Bytes& b) {
  return each<Bytes>([&](int i) { return uint8_t(b.v[i] >> 4); });
}
inline Four four(const int8_t* p) { return p; }
inline Ints dot_nibbles(const Ints& acc, const Bytes& low, const Bytes& high, Four a, Four b) {
  return each<Ints>([&](int i) {
    int32_t sum = acc.v[i];
    for (int j = 0; j < 4; ++j) sum += low.v[4 * i + j] * a[j] + high.v[4 * i + j] * b[j];
    return sum;
  });
}
inline const Bytes& as_operand(const Bytes& levels) { return levels; }
inline Ints dot_bytes(const Ints& acc, const Bytes& b, Four a) {
  return each<Ints>([&](int i) {
    int32_t sum = acc.v[i];
    for (int j = 0; j < 4; ++j) sum += int8_t(b.v[4 * i + j]) * a[j];
    return sum;
  });
}
inline Ints splat(int32_t v) {
  return each<Ints>([&](int) { return v; });
}
inline Ints join_planes(const Ints& upper, const Ints& lower) {
  return each<Ints>([&](int i) { return upper.v[i] * 128 + lower.v[i]; });
}
inline Ints subtract_zeros(const Ints& acc, const int8_t* zeros, int32_t sum) {
  return each<Ints>([&](int i) { return acc.v[i] - zeros[i] * sum; });
}
inline Floats zero() {
  return each<Floats>([](int) { return 0.0f; });
}
inline Floats broadcast(float v) {
  return each<Floats>([&](int) { return v; });
}
inline Floats to_float(const Ints& v) {
  return each<Floats>([&](int i) { return float(v.v[i]); });
}
inline Floats load_half(const uint16_t* p) {
  return each<Floats>([&](int i) { return from_fp16(p[i]); });
}
inline Floats load_bf16(const uint16_t* p) {
  return each<Floats>([&](int i) { return from_bf16(p[i]); });
}
inline Floats load_floats(const float* p) {
  return each<Floats>([&](int i) { return p[i]; });
}
inline float sum(const Floats& v) {
  float total = 0;
  for (float lane : v.v) total += lane;
  return total;
}
// out = the sums of the lanes of each of four.
inline void store_sums(const Floats* v, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = sum(v[i]);
}
inline Floats multiply(const Floats& a, const Floats& b) {
  return each<Floats>([&](int i) { return a.v[i] * b.v[i]; });
}
inline Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) {
  return each<Floats>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline Floats add(const Floats& a, const Floats& b) {
  return each<Floats>([&](int i) { return a.v[i] + b.v[i]; });
}
inline Floats divide(const Floats& a, const Floats& b) {
  return each<Floats>([&](int i) { return a.v[i] / b.v[i]; });
}
inline Floats absolute(const Floats& v) {
  return each<Floats>([&](int i) { return v.v[i] < 0 ? -v.v[i] : v.v[i]; });
}
// NaN stays NaN.
inline Floats clamp(const Floats& v, float least, float most) {
  return each<Floats>([&](int i) {
    const float raised = v.v[i] < least ? least : v.v[i];
    return raised > most ? most : raised;
  });
}
inline Floats where_negative(const Floats& v, const Floats& a, const Floats& b) {
  return each<Floats>([&](int i) { return v.v[i] < 0 ? a.v[i] : b.v[i]; });
}
// 2^v for whole v from -127, which gives 0, to 128, which gives infinity.
inline Floats power_of_two(const Floats& v) {
  return each<Floats>([&](int i) {
    // the whole number stands in the last bits of its sum with 1.5 * 2^23; NaN does no harm
    const int32_t power = static_cast<int32_t>(as_bits(v.v[i] + 0x1.8p23f)) - 0x4b400000;
    return as_float(static_cast<uint32_t>(power + 127) << 23);
  });
}
inline void store(float* p, const Floats& v) {
  for (int i = 0; i < 16; ++i) p[i] = v.v[i];
}
inline void store_half(uint16_t* p, const Floats& v) {
  for (int i = 0; i < 16; ++i) p[i] = to_fp16(v.v[i]);
}
inline void store_bf16(uint16_t* p, const Floats& v) {
  for (int i = 0; i < 16; ++i) p[i] = to_bf16(v.v[i]);
}
inline void prefetch(const uint8_t*) {}

}  // namespace
}  // namespace glm::GLM_ISA
