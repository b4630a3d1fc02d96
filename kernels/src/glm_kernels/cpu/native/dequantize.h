// A packed weight as numbers, in the order of its rows. Included for each instruction set, after
// weight_only.h; the compiler's own vectors are fast enough beside the product that follows.
#pragma once

#include "activations.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kCut = 512;  // columns that are taken through the 16 rows of a block at once

// Levels of a row, from its place in the first vector, as unsigned nibbles or signed bytes.
template <int Bits>
inline void levels_of_row(const uint8_t* from, int64_t count, int8_t* out) {
  constexpr int64_t kColumns = 32 / Bits;
  for (int64_t c = 0; c < count; c += kColumns, from += 64) {
    uint32_t four;
    std::memcpy(&four, from, 4);
    if (Bits == 8) {
      std::memcpy(out + c, &four, 4);
    } else {
      const uint32_t low = four & 0x0f0f0f0fu, high = four >> 4 & 0x0f0f0f0fu;
      std::memcpy(out + c, &low, 4);
      std::memcpy(out + c + 4, &high, 4);
    }
  }
}

// Writes columns [begin, begin + count) of a row, `count` at most kCut, to out.
template <int Bits>
void dequantize_cut(const Dequantize& a, const Sizes& size, int64_t row, int64_t begin, int64_t count,
                    int64_t out) {
  alignas(64) int8_t levels[kCut];
  alignas(64) float values[kCut];
  const int64_t block = row / kBlock, lane = row % kBlock;
  const uint8_t* from = a.levels + block * size.block_bytes + begin * kBlock * Bits / 8 + lane * 4;
  levels_of_row<Bits>(from, count, levels);
  const int64_t width = a.group ? a.group : kCut;
  for (int64_t i = 0; i < count; i += width) {
    const int64_t group = a.group ? block * size.groups + (begin + i) / width : block;
    const int64_t at = group * kBlock + lane, end = count - i < width ? count : i + width;
    const int32_t zero = (a.zeros ? a.zeros[at] : 0) + (Bits == 4 ? 8 : 0);
    const float scale = from_fp16(a.scales[at]);
    for (int64_t j = i; j < end; ++j) values[j] = static_cast<float>(levels[j] - zero) * scale;
  }
  write(values, a.dtype, out, count, a.out);
}

}  // namespace

void dequantize(const Dequantize& a) {
  const Sizes size(a.in_features, a.out_features, a.bits, a.group);
  const auto cut = a.bits == 4 ? dequantize_cut<4> : dequantize_cut<8>;
  parallel_for(size.blocks, 1, a.threads, [&](int64_t first, int64_t last) {
    const int64_t end = last * kBlock < a.out_features ? last * kBlock : a.out_features;
    for (int64_t c = 0; c < a.columns; c += kCut) {
      const int64_t count = a.columns - c < kCut ? a.columns - c : kCut;
      for (int64_t row = first * kBlock; row < end; ++row) {
        cut(a, size, row, a.begin + c, count, row * a.columns + c);
      }
    }
  });
}

}  // namespace glm::GLM_ISA
