// y = x W^T + b with W in 4 or 8 bits, on vectors of 16 lanes: one for each row of a block.
// Included once for each instruction set, with GLM_ISA its namespace and the lanes_*.h of the same
// name before it; with GLM_TILES where several rows go through tiles.
#pragma once

#include "activations.h"
#ifdef GLM_TILES
#include "tiles.h"
#endif

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kPrefetchScales = 256;

// Adds to acc[row, plane][block] the products of a unit of `Blocks` blocks, `block_bytes` apart,
// with one of the activations; fetches what lies `ahead` bytes further.
template <int Bits, int Sums, int Blocks>
inline void multiply_unit(const uint8_t* weight, int64_t block_bytes, int64_t ahead,
                          const int8_t* q, Ints (&acc)[Sums][Blocks]) {
  constexpr int kColumns = 32 / Bits;  // of a row in a vector: 8 or 4
  for (int v = 0; v < kUnit / kColumns; ++v) {
    Bytes lower[Blocks], upper[Blocks];
#pragma GCC unroll 4
    for (int b = 0; b < Blocks; ++b) {
      const uint8_t* from = weight + b * block_bytes + v * 64;
      prefetch(from + ahead);
      const Bytes levels = load(from);
      lower[b] = Bits == 4 ? low(levels) : as_operand(levels);
      if (Bits == 4) upper[b] = high(levels);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Sums; ++i) {
      const int8_t* from = q + i * kUnit + v * kColumns;
      const Four first = four(from), second = Bits == 4 ? four(from + 4) : first;
#pragma GCC unroll 4
      for (int b = 0; b < Blocks; ++b) {
        acc[i][b] = Bits == 4 ? dot_nibbles(acc[i][b], lower[b], upper[b], first, second)
                              : dot_bytes(acc[i][b], lower[b], first);
      }
    }
  }
}

// out[block][row][16] = the products of some blocks of the weight with a tile of activations.
template <int Bits, int Planes, int Rows, int Blocks>
[[gnu::noinline]] void multiply_blocks(const LinearArguments& a, const Sizes& size, int64_t block,
                                       const Activations& tile, Results* out) {
  constexpr int kOffset = Bits == 4 ? 8 : kByteOffset;
  constexpr int64_t kUnitBytes = kUnit * kBlock * Bits / 8;
  const int64_t block_scales = a.group ? size.groups * kBlock : kBlock;
  const int64_t scale_step = a.group ? kBlock : 0;
  const uint8_t* weight = a.levels + block * size.block_bytes;
  const uint16_t* scales = a.scales + block * block_scales;
  const int8_t* zeros = a.zeros ? a.zeros + block * block_scales : nullptr;
  const int8_t* q = tile.levels;
  Floats total[Rows][Blocks];
  for (auto& row : total) {
    for (auto& sum : row) sum = zero();
  }
  for (int64_t g = 0, unit = 0; g < size.groups; ++g) {
    const int32_t* sums = tile.sums + g * Rows;
    const float* x_scales = tile.scales + g * Rows;
    Ints acc[Rows * Planes][Blocks];
#pragma GCC unroll 8
    for (int i = 0; i < Rows * Planes * Blocks; ++i) {
      const int sum = i / Blocks;
      acc[sum][i % Blocks] = splat(sum % Planes == Planes - 1 ? -kOffset * sums[sum / Planes] : 0);
    }
    const int64_t end = unit + size.group_units < size.units ? unit + size.group_units : size.units;
    for (; unit < end; ++unit, weight += kUnitBytes, q += Rows * Planes * kUnit) {
      // what comes after these blocks lies behind the last of them
      const bool leaves = unit + kPrefetch / kUnitBytes >= size.units;
      const int64_t ahead = kPrefetch + (leaves ? (Blocks - 1) * size.block_bytes : 0);
      multiply_unit<Bits>(weight, size.block_bytes, ahead, q, acc);
    }
#pragma GCC unroll 4
    for (int b = 0; b < Blocks; ++b) {
      const int64_t at = b * block_scales + g * scale_step;
      prefetch(reinterpret_cast<const uint8_t*>(scales + at) + kPrefetchScales);
      const Floats scale = a.group ? load_half(scales + at) : broadcast(1);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        Ints sum = acc[r * Planes][b];
        if (Planes == 2) sum = join_planes(sum, acc[r * Planes + Planes - 1][b]);
        if (zeros) sum = subtract_zeros(sum, zeros + at, sums[r]);
        const Floats factor = multiply(scale, broadcast(x_scales[r]));
        total[r][b] = multiply_add(to_float(sum), factor, total[r][b]);
      }
    }
  }
  for (int b = 0; b < Blocks; ++b) {
    const Floats scale = a.group ? broadcast(1) : load_half(scales + b * kBlock);
    for (int r = 0; r < Rows; ++r) store(out[b].of[r], multiply(total[r][b], scale));
  }
}

// How many blocks of the weight are worked on at once: with few rows several, which share the loads
// of the activations and keep more sums going.
constexpr int blocks_at_once(int64_t rows) {
  return rows == 1 ? kSingleRowBlocks : rows <= kPairRows ? 2 : 1;
}

// Calls multiply_blocks for the number of rows that the tile has, and for one block or for
// blocks_at_once.
template <int Bits, int Planes, int Rows = kTileRows>
void multiply(int64_t rows, int64_t blocks, const LinearArguments& a, const Sizes& size,
              int64_t block, const Activations& tile, Results* out) {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      multiply<Bits, Planes, Rows - 1>(rows, blocks, a, size, block, tile, out);
    } else if (blocks == 1) {
      multiply_blocks<Bits, Planes, Rows, 1>(a, size, block, tile, out);
    } else {
      multiply_blocks<Bits, Planes, Rows, blocks_at_once(Rows)>(a, size, block, tile, out);
    }
  }
}

// Calls finish(results, row, block) for the products of blocks [first, last) of the weight with all
// the activations.
template <int Bits, int Planes, typename Finish>
void each_product(const LinearArguments& a, const Sizes& size, const Activations& all, int64_t rows,
                  int64_t first, int64_t last, const Finish& finish) {
#ifdef GLM_TILES
  if (rows >= kLeastTileRows) {
    return each_product_of_tiles<Bits, Planes>(a, size, all, rows, first, last, finish);
  }
#endif
  const int64_t at_once = blocks_at_once(rows);
  for (int64_t block = first, blocks; block < last; block += blocks) {
    blocks = last - block < at_once ? 1 : at_once;
    for (int64_t row = 0; row < rows; row += kTileRows) {
      Results results[kSingleRowBlocks];
      const int64_t count = tile_rows(rows, row);
      multiply<Bits, Planes>(count, blocks, a, size, block, tile_at(all, size, row, Planes), results);
      for (int64_t b = 0; b < blocks; ++b) {
        for (int64_t r = 0; r < count; ++r) finish(results[b].of[r], row + r, block + b);
      }
    }
  }
}

// Computes rows [begin, begin + rows) of y.
template <int Bits, int Planes>
void linear_chunk(const LinearArguments& a, const Sizes& size, const Activations& all,
                  int64_t begin, int64_t rows) {
  quantize<Planes, kTileRows, false>(a, size, all, begin, rows);
  const int64_t piece = piece_blocks(size, blocks_at_once(rows));
  parallel_for(size.blocks, piece, a.threads, [&](int64_t first, int64_t last) {
    each_product<Bits, Planes>(a, size, all, rows, first, last,
                               [&](float* results, int64_t row, int64_t block) {
                                 finish_row(a, results, begin + row, block);
                               });
  });
}

template <int Bits, int Planes>
int linear_of(const LinearArguments& a) {
  static thread_local Memory<int8_t> memory;
  const Sizes size(a);
  const int64_t chunk = chunk_rows(a, size, kTileRows);
  const Activations all = activations(memory, size, chunk, Planes);
  if (!all.levels) return 1;
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t rest = a.rows - begin;
    linear_chunk<Bits, Planes>(a, size, all, begin, rest < chunk ? rest : chunk);
  }
  return 0;
}

// The product, tiles of kTileRows rows at a time.
inline int linear_few(const LinearArguments& a) {
  if (a.bits == 4) return a.planes == 2 ? linear_of<4, 2>(a) : linear_of<4, 1>(a);
  return a.planes == 2 ? linear_of<8, 2>(a) : linear_of<8, 1>(a);
}

}  // namespace

#ifndef GLM_TILES
int linear(const LinearArguments& a) { return linear_few(a); }
#endif

}  // namespace glm::GLM_ISA
