// Brings quantized weights from the order of files into that of the kernels; see activations.h for
// both. Included for each instruction set, after weight_only.h.
#pragma once

#include <cstring>

#include "pack_abi.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kWord = 4;          // bytes of a row that stay together
constexpr int64_t kTileWords = 16;    // of a row, turned at once: a cache line
constexpr int64_t kPackBytes = 1 << 16;  // what a thread takes at a time, at least

// Eight columns as files hold them, column 2i high and 2i + 1 low in byte i, two's complement, to
// column i low and i + 4 high, 8 larger.
inline uint32_t arranged(uint32_t word) {
  const uint32_t even = word >> 4 & 0x0f0f0f0fu, odd = word & 0x0f0f0f0fu;
  const uint32_t lower = (even & 0xff) | (odd & 0xff) << 8 | (even & 0xff00) << 8 |
                         (odd & 0xff00) << 16;
  const uint32_t upper = (even >> 16 & 0xff) | (odd >> 16 & 0xff) << 8 | (even >> 24) << 16 |
                         (odd >> 24) << 24;
  return (lower | upper << 4) ^ 0x88888888u;
}

// The block of `rows` rows, at most kBlock, of `row_bytes` bytes each, `vectors` vectors long. What
// is missing counts as levels of 0.
template <int Bits>
void pack_block(const uint8_t* levels, int64_t rows, int64_t row_bytes, int64_t vectors,
                uint8_t* out) {
  for (int64_t first = 0; first < vectors; first += kTileWords) {
    const int64_t count = vectors - first < kTileWords ? vectors - first : kTileWords;
    const int64_t begin = first * kWord, rest = row_bytes - begin;
    uint32_t tile[kBlock][kTileWords];
    for (int64_t r = 0; r < kBlock; ++r) {
      uint32_t words[kTileWords] = {};
      const uint8_t* from = levels + r * row_bytes + begin;
      if (r < rows && rest >= int64_t(sizeof(words))) {
        std::memcpy(words, from, sizeof(words));
      } else if (r < rows && rest > 0) {
        std::memcpy(words, from, rest);
      }
      for (int64_t i = 0; i < kTileWords; ++i) {
        tile[r][i] = Bits == 4 ? arranged(words[i]) : words[i];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      uint32_t vector[kBlock];
      for (int64_t r = 0; r < kBlock; ++r) vector[r] = tile[r][i];
      std::memcpy(out + (first + i) * kBlock * kWord, vector, sizeof(vector));
    }
  }
}

}  // namespace

void pack_levels(const PackArguments& a) {
  const int64_t blocks = (a.rows + kBlock - 1) / kBlock, block_bytes = kBlock * kWord * a.vectors;
  parallel_for(blocks, kPackBytes / block_bytes + 1, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t rest = a.rows - block * kBlock, rows = rest < kBlock ? rest : kBlock;
      const uint8_t* from = a.levels + block * kBlock * a.row_bytes;
      const auto pack = a.bits == 4 ? pack_block<4> : pack_block<8>;
      pack(from, rows, a.row_bytes, a.vectors, a.out + block * block_bytes);
    }
  });
}

}  // namespace glm::GLM_ISA
