// Rows of tables: embeddings, plain or quantized. Included for each instruction set, after
// weight_only.h.
#pragma once

#include "decode_buffers.h"

namespace glm::GLM_ISA {
namespace {

// Levels of columns [begin, begin + count) of a row of a packed table; see activations.h.
template <int Bits>
inline void packed_levels(const Matrix& m, int64_t row, int64_t begin, int64_t count, int32_t* out) {
  constexpr int64_t kColumns = 32 / Bits;  // of a row in a vector
  const int64_t columns = (m.in_features + kUnit - 1) / kUnit * kUnit;
  const uint8_t* levels = static_cast<const uint8_t*>(m.values) +
                          row / kBlock * kBlock * columns * Bits / 8 + row % kBlock * 4;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = begin + i, place = column % kColumns;
    const uint8_t byte = levels[column / kColumns * 64 + place % 4];
    out[i] = Bits == 8 ? static_cast<int8_t>(byte) : (place < 4 ? byte & 15 : byte >> 4) - 8;
  }
}

// The same of a stored one: one after the other, two's complement, with 4 bits the even column in
// the high half of a byte.
template <int Bits>
inline void stored_levels(const Matrix& m, int64_t row, int64_t begin, int64_t count, int32_t* out) {
  const auto* levels = static_cast<const int8_t*>(m.values) + row * m.in_features * Bits / 8;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = begin + i;
    const int8_t byte = levels[column * Bits / 8];
    const bool is_low = Bits == 4 && column % 2;
    out[i] = Bits == 8 ? byte : static_cast<int8_t>(is_low ? byte * 16 : byte) >> 4;
  }
}

// out (+)= columns [begin, begin + count) of a row, at most kChunk.
inline void look_up(const Matrix& m, int64_t row, int64_t begin, int64_t count, bool adds,
                    float* out) {
  float values[kChunk];
  if (m.bits == 0) {
    read(m.values, m.dtype, row * m.in_features + begin, count, values);
  } else {
    int32_t levels[kChunk];
    const auto of = m.is_stored ? (m.bits == 4 ? stored_levels<4> : stored_levels<8>)
                                : (m.bits == 4 ? packed_levels<4> : packed_levels<8>);
    of(m, row, begin, count, levels);
    const int64_t width = m.group ? m.group : m.in_features, groups = m.in_features / width;
    for (int64_t i = 0, end; i < count; i = end) {
      const int64_t group = (begin + i) / width;
      end = std::min((group + 1) * width - begin, count);
      const int64_t at = m.is_stored ? row * groups + group
                                     : (row / kBlock * groups + group) * kBlock + row % kBlock;
      const float scale = from_fp16(m.scales[at]);
      const int32_t zero = m.zeros ? m.zeros[at] : 0;
      for (int64_t j = i; j < end; ++j) values[j] = static_cast<float>(levels[j] - zero) * scale;
    }
  }
  for (int64_t i = 0; i < count; ++i) out[i] = adds ? out[i] + values[i] : values[i];
}

}  // namespace
}  // namespace glm::GLM_ISA
