// Some rows of x on AMX, group by group: the same integers as on vectors, and so the same results. A
// packed weight already lies as tiles do, 4 columns of 16 rows in a vector, and so do activations:
// both planes of 8 rows are the 16 rows of a tile. Two products are under way at a time, of two blocks
// with one tile of rows or of one block, unpacked once, with two.
#pragma once

#include <algorithm>

#include "activations.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kLeastTileRows = 3;  // fewer are as fast on vectors, bound by reading the weight
constexpr int kUnitRows = kUnit / 4;   // of a tile that holds a unit of a block

// How large the tiles are: 0 to 3 sums, 4 and 5 activations, 6 and 7 levels of the weight.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};

  constexpr TileConfig(int x_rows, int x_bytes) {
    for (int i = 0; i < 6; ++i) rows[i] = static_cast<uint8_t>(x_rows);
    row_bytes[4] = row_bytes[5] = static_cast<uint16_t>(x_bytes);
    rows[6] = rows[7] = static_cast<uint8_t>(x_bytes / 4);
  }
};

// The processor's tiles belong to a thread while this lives. The config is static: GCC 12 takes the
// instruction to read 8 of the 64 bytes, and leaves out writing the others to the stack.
class TileUse {
 public:
  explicit TileUse(const TileConfig& config) { _tile_loadconfig(&config); }
  ~TileUse() { _tile_release(); }
};

// A unit of a block of 4 bits as a tile of 16 times its levels: where they lie in a byte's upper half
// they need no shift.
inline void unpack_unit(const uint8_t* weight, uint8_t* out) {
  constexpr int kAndXor = 0x6a;  // (a & b) ^ c
  const Bytes upper = _mm512_set1_epi8(int8_t(0xf0)), sign = _mm512_set1_epi8(int8_t(0x80));
  for (int v = 0; v < kUnitRows / 2; ++v) {
    const Bytes levels = load(weight + v * 64), low = _mm512_slli_epi16(levels, 4);
    prefetch(weight + v * 64 + kPrefetch);
    _mm512_store_si512(out + v * 128, _mm512_ternarylogic_epi32(low, upper, sign, kAndXor));
    _mm512_store_si512(out + v * 128 + 64, _mm512_ternarylogic_epi32(levels, upper, sign, kAndXor));
  }
}

// One of the two products under way: a block of the weight with a tile of rows.
struct Product {
  const uint8_t* weight;
  const uint16_t* scales;
  const int8_t* zeros;
  Activations x;
};

// Two products: with `Shared` of one block with two tiles of `Rows` rows, otherwise of two blocks with
// one tile. What a group goes through takes long, each step waiting for the one before: levels are
// unpacked, multiplied, read out of the tiles, scaled. So three groups are under way at a time.
template <int Bits, int Planes, int Rows, bool Shared>
class TileProducts {
 public:
  TileProducts(const LinearArguments& a, const Sizes& size, const Product (&of)[2])
      : a_(a), size_(size), of_(of) {}

  // out[product][row][16] = the results.
  [[gnu::noinline]] void multiply_into(Results* out) {
    Floats total[2][Rows];
    for (auto& product : total) {
      for (auto& sum : product) sum = zero();
    }
    for (int64_t g = 0; g < size_.groups + 2; ++g) {
      if (Bits == 4 && g < size_.groups) unpack(g);
      if (g > 0 && g <= size_.groups) multiply(g - 1);
      if (g > 1) add_scaled(g - 2, total);
    }
    for (int p = 0; p < 2; ++p) {
      const Floats scale = a_.group ? broadcast(1) : load_half(of_[p].scales);
      for (int r = 0; r < Rows; ++r) store(out[p].of[r], glm::GLM_ISA::multiply(total[p][r], scale));
    }
  }

 private:
  static constexpr int64_t kUnitBytes = kUnit * kBlock * Bits / 8, kXBytes = Rows * Planes * kUnit;
  static constexpr int kShift = Bits == 4 ? 4 : 0;  // of the unpacked levels

  int64_t begin(int64_t g) const { return g * size_.group_units; }
  int64_t end(int64_t g) const { return std::min(begin(g + 1), size_.units); }

  void unpack(int64_t g) {
    for (int64_t unit = begin(g); unit < end(g); ++unit) {
      for (int p = 0; p < (Shared ? 1 : 2); ++p) {
        unpack_unit(of_[p].weight + unit * kUnitBytes, levels_[g % 2][p][unit - begin(g)]);
      }
    }
  }

  const uint8_t* operand(int64_t g, int p, int64_t unit) const {
    return Bits == 4 ? levels_[g % 2][p][unit - begin(g)] : of_[p].weight + unit * kUnitBytes;
  }

  void multiply(int64_t g) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t unit = begin(g); unit < end(g); ++unit) {
      _tile_loadd(6, operand(g, 0, unit), 64);
      _tile_loadd(4, of_[0].x.levels + unit * kXBytes, kUnit);
      _tile_dpbssd(0, 4, 6);
      if (Shared) {
        _tile_loadd(5, of_[1].x.levels + unit * kXBytes, kUnit);
        _tile_dpbssd(1, 5, 6);
      } else {
        _tile_loadd(7, operand(g, 1, unit), 64);
        _tile_dpbssd(1, 4, 7);
      }
    }
    _tile_stored(0, sums_[g % 2][0][0], 64);
    _tile_stored(1, sums_[g % 2][1][0], 64);
  }

  void add_scaled(int64_t g, Floats (&total)[2][Rows]) const {
    const int64_t scale_step = a_.group ? kBlock : 0;
    for (int p = 0; p < 2; ++p) {
      const Product& product = of_[p];
      const Floats scale = a_.group ? load_half(product.scales + g * scale_step) : broadcast(1);
      const Floats unit_scale = glm::GLM_ISA::multiply(scale, broadcast(1.0f / (1 << kShift)));
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const auto& sums = sums_[g % 2][p];
        Ints sum = _mm512_load_si512(sums[r * Planes]);
        if (Planes == 2) sum = join_planes(sum, _mm512_load_si512(sums[r * Planes + Planes - 1]));
        if (product.zeros) {
          const int32_t q = product.x.sums[g * Rows + r] * (1 << kShift);
          sum = subtract_zeros(sum, product.zeros + g * scale_step, q);
        }
        const Floats factor =
            glm::GLM_ISA::multiply(unit_scale, broadcast(product.x.scales[g * Rows + r]));
        total[p][r] = multiply_add(to_float(sum), factor, total[p][r]);
      }
    }
  }

  const LinearArguments& a_;
  const Sizes& size_;
  const Product (&of_)[2];
  alignas(64) uint8_t levels_[2][2][kWholeRowGroup / kUnit][kUnitRows * 64];
  alignas(64) int32_t sums_[2][2][Rows * Planes][kBlock];
};

inline Product product_of(const LinearArguments& a, const Sizes& size, int64_t block,
                          const Activations& x) {
  const int64_t at = block * (a.group ? size.groups * kBlock : kBlock);
  return {a.levels + block * size.block_bytes, a.scales + at, a.zeros ? a.zeros + at : nullptr, x};
}

// Two tiles of rows, beginning at `row`, with blocks [first, last).
template <int Bits, int Planes, typename Finish>
void multiply_two_tiles(const LinearArguments& a, const Sizes& size, const Activations& all,
                        int64_t row, int64_t first, int64_t last, const Finish& finish) {
  Results results[2];
  for (int64_t block = first; block < last; ++block) {
    const Product of[2] = {
        product_of(a, size, block, tile_at(all, size, row, Planes)),
        product_of(a, size, block, tile_at(all, size, row + kTileRows, Planes))};
    TileProducts<Bits, Planes, kTileRows, true>(a, size, of).multiply_into(results);
    for (int64_t r = 0; r < 2 * kTileRows; ++r) {
      finish(results[r / kTileRows].of[r % kTileRows], row + r, block);
    }
  }
}

// A tile of rows, beginning at `row`, with blocks [first, last), by twos.
template <int Bits, int Planes, int Rows = kTileRows, typename Finish>
void multiply_one_tile(const LinearArguments& a, const Sizes& size, const Activations& all,
                       int64_t rows, int64_t row, int64_t first, int64_t last, const Finish& finish) {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      return multiply_one_tile<Bits, Planes, Rows - 1>(a, size, all, rows, row, first, last, finish);
    }
    static constexpr TileConfig config(Rows * Planes, kUnit);
    const TileUse use(config);
    const Activations x = tile_at(all, size, row, Planes);
    Results results[2];
    for (int64_t block = first; block < last; block += 2) {
      const int64_t next = block + 1 < last ? block + 1 : block;  // itself where there is no other
      const Product of[2] = {product_of(a, size, block, x), product_of(a, size, next, x)};
      TileProducts<Bits, Planes, Rows, false>(a, size, of).multiply_into(results);
      for (int64_t b = 0; b <= next - block; ++b) {
        for (int64_t r = 0; r < Rows; ++r) finish(results[b].of[r], row + r, block + b);
      }
    }
  }
}

// What each_product of weight_only.h does, on tiles.
template <int Bits, int Planes, typename Finish>
void each_product_of_tiles(const LinearArguments& a, const Sizes& size, const Activations& all,
                           int64_t rows, int64_t first, int64_t last, const Finish& finish) {
  int64_t row = 0;
  if (rows >= 2 * kTileRows) {
    static constexpr TileConfig config(kTileRows * Planes, kUnit);
    const TileUse use(config);
    for (; rows - row >= 2 * kTileRows; row += 2 * kTileRows) {
      multiply_two_tiles<Bits, Planes>(a, size, all, row, first, last, finish);
    }
  }
  for (; row < rows; row += kTileRows) {
    multiply_one_tile<Bits, Planes>(a, size, all, tile_rows(rows, row), row, first, last, finish);
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
