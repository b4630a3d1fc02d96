// Sixteen lanes, one for each row of a block, in two registers: AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace glm::GLM_ISA {
namespace {

struct Bytes {
  __m256i a, b;
};
using Ints = Bytes;
using Four = __m256i;  // 4 bytes, 8 times
struct Floats {
  __m256 a, b;
};

constexpr int kTileRows = 2;
constexpr int kSingleRowBlocks = 2;  // blocks worked on at once for one row of x
constexpr int kPairRows = 0;  // two for up to so many rows
constexpr int kSums = 4;  // fp32 sums kept in registers at once
constexpr int kByteOffset = 0;  // bits 8: levels stay signed

inline Bytes load(const uint8_t* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline Bytes low(Bytes v) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask)};
}
inline Bytes high(Bytes v) {
  return low({_mm256_srli_epi16(v.a, 4), _mm256_srli_epi16(v.b, 4)});
}

inline Four four(const int8_t* p) {
  int32_t bytes;
  std::memcpy(&bytes, p, 4);
  return _mm256_set1_epi32(bytes);
}
inline __m256i add_pairs(__m256i acc, __m256i pairs) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Products of nibbles and int8 pair up to at most 2 * 15 * 127: two pairs fit in 16 bits.
inline Ints dot_nibbles(Ints acc, Bytes low, Bytes high, Four x, Four y) {
  const auto pairs = [&](__m256i l, __m256i h) {
    return _mm256_add_epi16(_mm256_maddubs_epi16(l, x), _mm256_maddubs_epi16(h, y));
  };
  return {add_pairs(acc.a, pairs(low.a, high.a)), add_pairs(acc.b, pairs(low.b, high.b))};
}

inline Bytes as_operand(Bytes levels) { return levels; }

// |level| <= 128 times int8 pairs up to at most 2 * 128 * 127, which fits in 16 bits.
inline Ints dot_bytes(Ints acc, Bytes v, Four x) {
  const auto pairs = [&](__m256i level) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(x, level));
  };
  return {add_pairs(acc.a, pairs(v.a)), add_pairs(acc.b, pairs(v.b))};
}

inline Ints splat(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
inline Ints join_planes(Ints upper, Ints lower) {
  return {_mm256_add_epi32(_mm256_slli_epi32(upper.a, 7), lower.a),
          _mm256_add_epi32(_mm256_slli_epi32(upper.b, 7), lower.b)};
}
inline Ints subtract_zeros(Ints acc, const int8_t* zeros, int32_t sum) {
  const auto product = [&](const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_mullo_epi32(_mm256_cvtepi8_epi32(bytes), _mm256_set1_epi32(sum));
  };
  return {_mm256_sub_epi32(acc.a, product(zeros)), _mm256_sub_epi32(acc.b, product(zeros + 8))};
}

inline Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats broadcast(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline Floats to_float(Ints v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
inline Floats load_half(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline Floats load_bf16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  const auto widen = [](__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  };
  return {widen(_mm_loadu_si128(q)), widen(_mm_loadu_si128(q + 1))};
}
inline Floats load_floats(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline float sum(Floats v) {
  const __m256 eight = _mm256_add_ps(v.a, v.b);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
// out = the sums of the lanes of each of four.
inline void store_sums(const Floats* v, float* out) {
  const auto pair = [](const Floats& x, const Floats& y) {
    return _mm256_hadd_ps(_mm256_add_ps(x.a, x.b), _mm256_add_ps(y.a, y.b));
  };
  const __m256 halves = _mm256_hadd_ps(pair(v[0], v[1]), pair(v[2], v[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}
inline Floats multiply(Floats x, Floats y) {
  return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline Floats multiply_add(Floats x, Floats y, Floats z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Floats add(Floats x, Floats y) {
  return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
inline Floats divide(Floats x, Floats y) {
  return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
inline Floats absolute(Floats v) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, v.a), _mm256_andnot_ps(sign, v.b)};
}
// NaN stays NaN.
inline Floats clamp(Floats v, float least, float most) {
  const __m256 low = _mm256_set1_ps(least), high = _mm256_set1_ps(most);
  return {_mm256_min_ps(high, _mm256_max_ps(low, v.a)),
          _mm256_min_ps(high, _mm256_max_ps(low, v.b))};
}
inline Floats where_negative(Floats v, Floats x, Floats y) {
  const auto negative = [](__m256 part) {
    return _mm256_cmp_ps(part, _mm256_setzero_ps(), _CMP_LT_OQ);
  };
  return {_mm256_blendv_ps(y.a, x.a, negative(v.a)), _mm256_blendv_ps(y.b, x.b, negative(v.b))};
}
// 2^v for whole v from -127, which gives 0, to 128, which gives infinity.
inline Floats power_of_two(Floats v) {
  const auto power = [](__m256 part) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(part), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  };
  return {power(v.a), power(v.b)};
}
inline void store(float* p, Floats v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
// Rounds to nearest, ties to even; NaN stays NaN.
inline void store_half(uint16_t* p, Floats v) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  auto* q = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(v.a, kNearest));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(v.b, kNearest));
}
inline void store_bf16(uint16_t* p, Floats v) {
  const auto rounded = [](__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, nan), 16);
  };
  // packing puts the halves of a and b in turn: a0 b0 a1 b1
  const __m256i packed = _mm256_packus_epi32(rounded(v.a), rounded(v.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace
}  // namespace glm::GLM_ISA
