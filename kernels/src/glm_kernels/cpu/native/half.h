// fp16 and bf16 by their bits, for every processor; loops over these vectorize.
#pragma once

#include <cstdint>
#include <cstring>

namespace glm {
namespace {

inline float as_float(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

inline uint32_t as_bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}

inline float from_bf16(uint16_t v) { return as_float(uint32_t{v} << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t to_bf16(float v) {
  const uint32_t bits = as_bits(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_fp16(uint16_t v) {
  const uint32_t sign = uint32_t{v & 0x8000u} << 16, rest = v & 0x7fffu;
  // The exponent is moved by multiplying with 2^112: right for subnormals too.
  const float magnitude = as_float(rest << 13) * 0x1p112f;
  const uint32_t bits = rest >= 0x7c00u ? (rest << 13) | 0x7f800000u : as_bits(magnitude);
  return as_float(bits | sign);
}

// Rounds to nearest, ties to even; too large becomes infinity; NaN stays NaN.
inline uint16_t to_fp16(float v) {
  const uint32_t bits = as_bits(v), rest = bits & 0x7fffffffu;
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  if (rest > 0x7f800000u) return sign | 0x7e00u;
  if (rest >= 0x477ff000u) return sign | 0x7c00u;
  if (rest < 0x38800000u) {  // a subnormal: adding 0.5 leaves its multiple of 2^-24 in the last bits
    return sign | static_cast<uint16_t>(as_bits(as_float(rest) + 0.5f) - 0x3f000000u);
  }
  return sign | static_cast<uint16_t>((rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13);
}

}  // namespace
}  // namespace glm
