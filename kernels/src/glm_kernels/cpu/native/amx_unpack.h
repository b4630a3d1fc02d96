// A span of a packed weight as tiles of AMX, in one plane of its levels or in two of 15 bits with one
// scale for each row.
#pragma once

#include "activations.h"

namespace glm::GLM_ISA {
namespace {

constexpr int kTile = 16;             // rows of x in a tile
constexpr int64_t kStep = 64;         // columns of a tile
constexpr int64_t kSpan = 512;        // columns that are summed as integers
constexpr int64_t kSpanSteps = kSpan / kStep;
constexpr int64_t kTileBytes = kTile * kStep;
constexpr int64_t kStepBytes = 4 * kTileBytes;  // two planes of two blocks of the weight
constexpr float kTop = 127 * 128;

// One plane of the products of levels with the scales of their rows lies on the other, `kTileBytes`
// apart. The levels are shifted to the top of 16 bits, those of even and odd columns apart.
inline void split(Bytes even, Bytes odd, Bytes scale, uint8_t* out) {
  constexpr int kChoose = 0xca;  // a ? b : c
  const Bytes half = _mm512_set1_epi16(64), first = _mm512_set1_epi16(255);
  const Bytes e = _mm512_add_epi16(_mm512_mulhrs_epi16(even, scale), half);
  const Bytes o = _mm512_add_epi16(_mm512_mulhrs_epi16(odd, scale), half);
  // upper = (v + 64) >> 7, lower = ((v + 64) & 127) - 64
  const Bytes e_twice = _mm512_add_epi16(e, e), o_twice = _mm512_add_epi16(o, o);
  const Bytes upper =
      _mm512_ternarylogic_epi32(first, _mm512_srli_epi16(e_twice, 8), o_twice, kChoose);
  const Bytes both = _mm512_ternarylogic_epi32(first, e, _mm512_slli_epi16(o, 8), kChoose);
  const Bytes lower = _mm512_sub_epi8(_mm512_and_si512(both, _mm512_set1_epi8(127)),
                                      _mm512_set1_epi8(64));
  _mm512_store_si512(out, upper);
  _mm512_store_si512(out + kTileBytes, lower);
}

// Vectors of the unpacked weight for one of the packed one.
template <int Bits, int Planes, bool Zeros>
inline void unpack_vector(Bytes packed, Bytes scale, Bytes zero, __m128i down, uint8_t* out) {
  if constexpr (Planes == 1) {
    const Bytes eight = _mm512_set1_epi8(8);
    _mm512_store_si512(out, Bits == 4 ? _mm512_sub_epi8(low(packed), eight) : packed);
    if (Bits == 4) _mm512_store_si512(out + 64, _mm512_sub_epi8(high(packed), eight));
  } else {
    const auto level = [&](Bytes v) {
      constexpr int kAndXor = 0x6a;  // (a & b) ^ c
      const Bytes top = _mm512_set1_epi16(Bits == 4 ? int16_t(0xf000) : int16_t(0xff00));
      const Bytes sign = _mm512_set1_epi16(Bits == 4 ? int16_t(0x8000) : 0);
      v = _mm512_ternarylogic_epi32(v, top, sign, kAndXor);
      return Zeros ? _mm512_sub_epi16(_mm512_sra_epi16(v, down), zero) : v;
    };
    if (Bits == 4) {
      split(level(_mm512_slli_epi16(packed, 12)), level(_mm512_slli_epi16(packed, 4)), scale, out);
      split(level(_mm512_slli_epi16(packed, 8)), level(packed), scale, out + 64);
    } else {
      split(level(_mm512_slli_epi16(packed, 8)), level(packed), scale, out);
    }
  }
}

// How far levels minus zero points reach, a power of two.
template <int Bits>
int reach_of(const int8_t* zeros, int64_t count) {
  int largest = 0;
  for (int64_t i = 0; zeros && i < count; ++i) {
    const int z = zeros[i] < 0 ? -zeros[i] : zeros[i];
    largest = z > largest ? z : largest;
  }
  if (Bits == 8) return largest ? 256 : 128;
  return largest == 0 ? 8 : largest <= 8 ? 16 : 256;
}

// Both halves of each 32-bit lane get its value, |v| < 2^15.
inline Bytes twice(Ints v) {
  return _mm512_or_si512(_mm512_and_si512(v, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(v, 16));
}

// Unpacks a span of a block to [step][2 blocks][plane][16][64], of which this is one block, and sets
// the value of the last place for each of its rows.
template <int Bits, int Planes, bool Zeros>
void unpack_span(const LinearArguments& a, const Sizes& size, int64_t block, int64_t span,
                 uint8_t* out, float* places) {
  constexpr int64_t kVectorColumns = 32 / Bits;
  const int64_t first = span * kSpan / kUnit, rest = size.units - first;
  const int64_t units = rest < kSpan / kUnit ? rest : kSpan / kUnit;
  const uint8_t* from = a.levels + block * size.block_bytes + first * kUnit * kBlock * Bits / 8;
  const int64_t groups = (units + size.group_units - 1) / size.group_units;
  const int64_t at = (a.group ? (block * size.groups + first / size.group_units) : block) * kBlock;
  const int64_t step = a.group ? kBlock : 0;
  Floats largest = zero();
  for (int64_t g = 0; g < groups; ++g) {
    largest = _mm512_max_ps(largest, _mm512_abs_ps(load_half(a.scales + at + g * step)));
  }
  const int reach = reach_of<Bits>(a.zeros ? a.zeros + at : nullptr, step ? groups * step : kBlock);
  const int log_reach = __builtin_ctz(reach), up = 15 - log_reach;
  const __m128i down = _mm_cvtsi32_si128(log_reach - (Bits - 1));
  const __mmask16 some = _mm512_cmp_ps_mask(largest, zero(), _CMP_NEQ_OQ);
  const Floats inverse = _mm512_maskz_div_ps(some, broadcast(kTop), largest);
  store(places, Planes == 1 ? load_half(a.scales + at) : multiply(largest, broadcast(reach / kTop)));
  for (int64_t g = 0; g < groups; ++g) {
    const Floats scale = multiply(load_half(a.scales + at + g * step), inverse);
    Ints zeros = splat(0);
    if (Zeros) zeros = subtract_zeros(zeros, a.zeros + at + g * step, -(1 << up));
    const Bytes scale_twice = twice(_mm512_cvtps_epi32(scale)), zeros_twice = twice(zeros);
    const int64_t begin = g * size.group_units * kUnit, width = size.group_units * kUnit;
    const int64_t end = begin + width < units * kUnit ? begin + width : units * kUnit;
    for (int64_t c = begin; c < end; c += kVectorColumns, from += 64) {
      uint8_t* to = out + c / kStep * kStepBytes + c % kStep / 4 * 64;
      unpack_vector<Bits, Planes, Zeros>(load(from), scale_twice, zeros_twice, down, to);
    }
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
