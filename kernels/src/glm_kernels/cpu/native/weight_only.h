// y = x W^T + b with W in 4 or 8 bits. Included once for each instruction set, with GLM_ISA its
// namespace and the lanes_*.h of the same name before it.
//
// Packed weight: rows in blocks of 16, columns in units of 32 (in_features is padded to whole units
// with levels that meet activations of 0). A unit of a block is a run of 64-byte vectors, 4 bytes
// for each of the 16 rows: with 8 bits those are columns 4v..4v+3 of vector v; with 4 bits, columns
// 8v..8v+3 in the low halves of the bytes and 8v+4..8v+7 in the high halves, level + 8 in each. So a
// vector feeds 16 rows at once and a block is read from its first byte to its last.
//
// Activations become integers q = round(x / scale), one scale for each group of columns of each row:
// |q| <= 127 in one int8 plane, or |q| <= 16256 in two, q = 128 * upper + lower. All sums of a group
// are exact in int32 (at most 255 * 16256 * 128 < 2^30, twice with a zero point), so every
// instruction set computes the same ones; only the fp32 sum over the groups may round differently.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "abi.h"
#include "half.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kBlock = 16;          // rows of the weight in a block
constexpr int64_t kUnit = 32;           // columns in a unit
constexpr int64_t kWholeRowGroup = 128;  // columns that share an activation scale when group is 0
constexpr int64_t kPrefetch = 2048;      // bytes ahead of the read
constexpr int64_t kPrefetchScales = 256;
constexpr int64_t kChunkBytes = 1 << 20;  // activations worked on at once: they stay in the L2 cache
constexpr int64_t kPieceBytes = 1 << 17;  // of the weight: what a thread takes at a time

// The products of a block with a tile.
struct Results {
  float of[kTileRows][kBlock];
};

struct Sizes {
  int64_t units, group_units, groups, blocks, block_bytes;

  explicit Sizes(const LinearArguments& a)
      : units((a.in_features + kUnit - 1) / kUnit),
        group_units((a.group ? a.group : kWholeRowGroup) / kUnit),
        groups((units + group_units - 1) / group_units),
        blocks((a.out_features + kBlock - 1) / kBlock),
        block_bytes(units * kUnit * kBlock * a.bits / 8) {}
};

// The quantized activations of some rows, in tiles of at most kTileRows rows.
struct Activations {
  int8_t* levels;  // [tile][unit][row][plane][32]
  float* scales;   // [tile][group][row]
  int32_t* sums;   // [tile][group][row]: of q
};

inline float element(const void* p, int32_t dtype, int64_t i) {
  if (dtype == kFloat32) return static_cast<const float*>(p)[i];
  const uint16_t bits = static_cast<const uint16_t*>(p)[i];
  return dtype == kBFloat16 ? from_bf16(bits) : from_fp16(bits);
}

inline void read(const void* p, int32_t dtype, int64_t begin, int64_t count, float* out) {
  const auto* half = static_cast<const uint16_t*>(p) + begin;
  if (dtype == kFloat32) {
    std::memcpy(out, static_cast<const float*>(p) + begin, count * sizeof(float));
  } else if (dtype == kBFloat16) {
    for (int64_t i = 0; i < count; ++i) out[i] = from_bf16(half[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = from_fp16(half[i]);
  }
}

inline void write(const float* in, int32_t dtype, int64_t begin, int64_t count, void* p) {
  auto* half = static_cast<uint16_t*>(p) + begin;
  if (dtype == kFloat32) {
    std::memcpy(static_cast<float*>(p) + begin, in, count * sizeof(float));
  } else if (dtype == kBFloat16) {
    for (int64_t i = 0; i < count; ++i) half[i] = to_bf16(in[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) half[i] = to_fp16(in[i]);
  }
}

// Returns the scale of a group; sets `inverse` to what its elements are multiplied by. A group with
// NaN or infinity gets scale NaN, so that what depends on it is NaN.
template <int Planes>
inline float group_scale(const float* x, int64_t count, float* inverse) {
  constexpr float kTop = Planes == 2 ? 127 * 128 : 127;
  int32_t largest = 0;  // without their sign, floats are ordered as their bits are
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = static_cast<int32_t>(as_bits(x[i]) & 0x7fffffffu);
    largest = bits > largest ? bits : largest;
  }
  const float top = as_float(static_cast<uint32_t>(largest));
  *inverse = 0;
  if (largest >= 0x7f800000) return as_float(0x7fc00000u);
  if (top < 0x1p-100f) return 0;  // kTop / top could overflow; the group counts as zeros
  *inverse = kTop / top;
  return top / kTop;
}

// Quantizes one unit into its planes, `plane_step` bytes apart, and returns the sum of q.
template <int Planes>
inline int32_t quantize_unit(const float* x, float inverse, int8_t* out) {
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the last bits
  int32_t sum = 0;
  for (int i = 0; i < kUnit; ++i) {
    const int32_t q = static_cast<int32_t>(as_bits(x[i] * inverse + kRound)) - 0x4b400000;
    sum += q;
    if (Planes == 1) {
      out[i] = static_cast<int8_t>(q);
    } else {
      const int32_t lower = ((q + 64) & 127) - 64;
      out[i] = static_cast<int8_t>((q - lower) >> 7);
      out[kUnit + i] = static_cast<int8_t>(lower);
    }
  }
  return sum;
}

// Quantizes row `row` of a tile of `tile_rows` rows; x is its first element.
template <int Planes>
void quantize_row(const LinearArguments& a, const Sizes& size, const void* x, int64_t x_begin,
                  const Activations& tile, int64_t tile_rows, int64_t row) {
  float values[kWholeRowGroup];
  for (int64_t g = 0; g < size.groups; ++g) {
    const int64_t begin = g * size.group_units * kUnit, width = size.group_units * kUnit;
    const int64_t count = a.in_features - begin < width ? a.in_features - begin : width;
    read(x, a.x_dtype, x_begin + begin, count, values);
    for (int64_t i = count; i < width; ++i) values[i] = 0;
    float inverse;
    tile.scales[g * tile_rows + row] = group_scale<Planes>(values, count, &inverse);
    if (inverse == 0) {
      for (int64_t i = 0; i < count; ++i) values[i] = 0;  // NaN * 0 is no integer
    }
    int32_t sum = 0;
    for (int64_t u = 0; u * kUnit < count; ++u) {
      const int64_t unit = g * size.group_units + u;
      int8_t* out = tile.levels + (unit * tile_rows + row) * Planes * kUnit;
      sum += quantize_unit<Planes>(values + u * kUnit, inverse, out);
    }
    tile.sums[g * tile_rows + row] = sum;
  }
}

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

// One thread's buffer for quantized activations. It only grows, so that a call allocates nothing.
class Workspace {
 public:
  ~Workspace() { std::free(data_); }

  // Returns where the activations of `rows` rows go; levels is null when there is no memory.
  Activations activations(const Sizes& size, int64_t rows, int planes) {
    const int64_t levels = rows * size.units * kUnit * planes;
    const int64_t numbers = rows * size.groups;
    const int64_t bytes = levels + numbers * int64_t(sizeof(float) + sizeof(int32_t)) + 64;
    if (bytes > capacity_) {
      std::free(data_);
      data_ = std::malloc(static_cast<size_t>(bytes));
      capacity_ = data_ ? bytes : 0;
    }
    if (!data_) return {nullptr, nullptr, nullptr};
    auto* sums = static_cast<int32_t*>(data_);
    auto* scales = reinterpret_cast<float*>(sums + numbers);
    return {reinterpret_cast<int8_t*>(scales + numbers), scales, sums};
  }

 private:
  void* data_ = nullptr;
  int64_t capacity_ = 0;
};

// The part of the activations that holds the tile beginning at row `row`.
inline Activations tile_at(const Activations& all, const Sizes& size, int64_t row, int planes) {
  return {all.levels + row * size.units * kUnit * planes, all.scales + row * size.groups,
          all.sums + row * size.groups};
}

inline int64_t tile_rows(int64_t rows, int64_t row) {
  return rows - row < kTileRows ? rows - row : kTileRows;
}

// Adds the bias to the results of a block and writes them to y.
inline void finish(const LinearArguments& a, Results& results, int64_t first_row,
                   int64_t rows, int64_t block) {
  const int64_t column = block * kBlock, rest = a.out_features - column;
  const int64_t count = rest < kBlock ? rest : kBlock;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; a.bias && i < count; ++i) {
      results.of[r][i] += element(a.bias, a.bias_dtype, column + i);
    }
    write(results.of[r], a.x_dtype, (first_row + r) * a.out_features + column, count, a.out);
  }
}

// Computes rows [begin, begin + rows) of y.
template <int Bits, int Planes>
void linear_chunk(const LinearArguments& a, const Sizes& size, const Activations& all,
                  int64_t begin, int64_t rows) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  parallel_for(tiles, 1, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first * kTileRows; row < rows && row < last * kTileRows; ++row) {
      const int64_t start = row - row % kTileRows;
      quantize_row<Planes>(a, size, a.x, (begin + row) * a.x_stride,
                           tile_at(all, size, start, Planes), tile_rows(rows, start), row - start);
    }
  });
  const int64_t at_once = blocks_at_once(rows);
  const int64_t piece = (kPieceBytes / size.block_bytes / at_once + 1) * at_once;
  parallel_for(size.blocks, piece, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t block = first, blocks; block < last; block += blocks) {
      blocks = last - block < at_once ? 1 : at_once;
      for (int64_t row = 0; row < rows; row += kTileRows) {
        Results results[kSingleRowBlocks];
        const int64_t count = tile_rows(rows, row);
        multiply<Bits, Planes>(count, blocks, a, size, block, tile_at(all, size, row, Planes),
                               results);
        for (int64_t b = 0; b < blocks; ++b) {
          finish(a, results[b], begin + row, count, block + b);
        }
      }
    }
  });
}

template <int Bits, int Planes>
int linear_of(const LinearArguments& a) {
  static thread_local Workspace workspace;
  const Sizes size(a);
  int64_t chunk = kChunkBytes / (size.units * kUnit * Planes) / kTileRows * kTileRows;
  if (chunk < kTileRows) chunk = kTileRows;
  const Activations all = workspace.activations(size, a.rows < chunk ? a.rows : chunk, Planes);
  if (!all.levels) return 1;
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t rest = a.rows - begin;
    linear_chunk<Bits, Planes>(a, size, all, begin, rest < chunk ? rest : chunk);
  }
  return 0;
}

}  // namespace

int linear(const LinearArguments& a) {
  if (a.bits == 4) return a.planes == 2 ? linear_of<4, 2>(a) : linear_of<4, 1>(a);
  return a.planes == 2 ? linear_of<8, 2>(a) : linear_of<8, 1>(a);
}

}  // namespace glm::GLM_ISA
