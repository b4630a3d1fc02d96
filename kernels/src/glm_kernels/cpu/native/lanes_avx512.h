// Sixteen lanes, one for each row of a block, in one register: AVX-512 with VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace glm::GLM_ISA {
namespace {

using Bytes = __m512i;   // 16 rows x 4 bytes
using Ints = __m512i;    // 16 x int32
using Floats = __m512;   // 16 x fp32
using Four = __m512i;    // 4 bytes, 16 times

constexpr int kTileRows = 8;        // rows of x worked on at once
constexpr int kSingleRowBlocks = 4;  // blocks worked on at once for one row of x
constexpr int kPairRows = 4;  // two for up to so many rows
constexpr int kSums = 16;  // fp32 sums kept in registers at once
constexpr int kByteOffset = 128;    // bits 8: vpdpbusd takes levels as unsigned, 128 too large

inline Bytes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline Bytes low(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
inline Bytes high(Bytes b) { return low(_mm512_srli_epi16(b, 4)); }

inline Four four(const int8_t* p) {
  int32_t bytes;
  std::memcpy(&bytes, p, 4);
  return _mm512_set1_epi32(bytes);
}

// acc + the products of nibbles 0..15 with eight activations, columns 0..3 low, 4..7 high.
inline Ints dot_nibbles(Ints acc, Bytes low, Bytes high, Four a, Four b) {
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(acc, low, a), high, b);
}

inline Bytes as_operand(Bytes levels) { return _mm512_xor_si512(levels, _mm512_set1_epi8(-128)); }
inline Ints dot_bytes(Ints acc, Bytes b, Four a) {
  return _mm512_dpbusd_epi32(acc, b, a);
}

inline Ints splat(int32_t v) { return _mm512_set1_epi32(v); }
inline Ints join_planes(Ints upper, Ints lower) {
  return _mm512_add_epi32(_mm512_slli_epi32(upper, 7), lower);
}
// acc - zeros * sum, zeros: 16 x int8
inline Ints subtract_zeros(Ints acc, const int8_t* zeros, int32_t sum) {
  const __m512i z = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(zeros)));
  return _mm512_sub_epi32(acc, _mm512_mullo_epi32(z, splat(sum)));
}

inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats broadcast(float v) { return _mm512_set1_ps(v); }
inline Floats to_float(Ints v) { return _mm512_cvtepi32_ps(v); }
inline Floats load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Floats load_bf16(const uint16_t* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
inline float sum(Floats v) { return _mm512_reduce_add_ps(v); }
// out = the sums of the lanes of each of four.
inline void store_sums(const Floats* v, float* out) {
  const auto pair = [](Floats a, Floats b) {  // a0 + a2, b0 + b2, a1 + a3, b1 + b3 of each quarter
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  };
  const Floats x = pair(v[0], v[1]), y = pair(v[2], v[3]);
  const Floats quarters =
      _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee));
  const __m256 halves =
      _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats absolute(Floats v) { return _mm512_abs_ps(v); }
// NaN stays NaN.
inline Floats clamp(Floats v, float least, float most) {
  return _mm512_min_ps(broadcast(most), _mm512_max_ps(broadcast(least), v));
}
inline Floats where_negative(Floats v, Floats a, Floats b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(v, zero(), _CMP_LT_OQ), b, a);
}
// 2^v for whole v from -127, which gives 0, to 128, which gives infinity.
inline Floats power_of_two(Floats v) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
// Rounds to nearest, ties to even; NaN stays NaN.
inline void store_half(uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store_bf16(uint16_t* p, Floats v) {
  const __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i rounded = _mm512_srli_epi32(_mm512_mask_mov_epi32(sum, nan, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded));
}

inline void prefetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

}  // namespace
}  // namespace glm::GLM_ISA
