// What all paths share: the layout of packed weights, the quantized activations, the results.
// Included once for each instruction set, with GLM_ISA its namespace.
//
// Packed weight: rows in blocks of 16, columns in units of 32 (in_features is padded to whole units
// with levels that meet activations of 0). A unit of a block is a run of 64-byte vectors, 4 bytes
// for each of the 16 rows: with 8 bits those are columns 4v..4v+3 of vector v; with 4 bits, columns
// 8v..8v+3 in the low halves of the bytes and 8v+4..8v+7 in the high halves, level + 8 in each. So a
// vector feeds 16 rows at once and a block is read from its first byte to its last.
//
// Activations become integers q = round(x / scale), one scale for each group of columns of each row:
// |q| <= 127 in one int8 plane, or |q| <= 16256 in two, q = 128 * upper + lower. All sums of a group
// are exact in int32 (at most 255 * 16256 * 128 < 2^30, twice with a zero point), so all vectors
// compute the same ones; only the fp32 sum over the groups may round differently. Tiles have an order
// and a rounding of their own, see spans.h.
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
constexpr int64_t kChunkBytes = 1 << 20;  // activations worked on at once: they stay in the L2 cache
constexpr int64_t kPrefetch = 2048;  // bytes ahead of the read
constexpr int64_t kPieceBytes = 1 << 17;  // of the weight: what a thread takes at a time

struct Sizes {
  int64_t units, group_units, groups, blocks, block_bytes;

  Sizes(int64_t in_features, int64_t out_features, int64_t bits, int64_t group)
      : units((in_features + kUnit - 1) / kUnit),
        group_units((group ? group : kWholeRowGroup) / kUnit),
        groups((units + group_units - 1) / group_units),
        blocks((out_features + kBlock - 1) / kBlock),
        block_bytes(units * kUnit * kBlock * bits / 8) {}
  explicit Sizes(const LinearArguments& a) : Sizes(a.in_features, a.out_features, a.bits, a.group) {}
};

// The quantized activations of some rows, in tiles of some rows each.
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
inline int32_t quantize_unit(const float* __restrict x, float inverse, int8_t* __restrict out, int64_t plane_step) {
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
      out[plane_step + i] = static_cast<int8_t>(lower);
    }
  }
  return sum;
}

// Quantizes groups [first, last) of row `row` of a tile of `tile_rows` rows; the row begins at element
// x_begin of a.x.
template <int Planes>
void quantize_groups(const LinearArguments& a, const Sizes& size, int64_t x_begin, int64_t first,
                     int64_t last, const Activations& tile, int64_t tile_rows, int64_t row) {
  float values[kWholeRowGroup];
  for (int64_t g = first; g < last; ++g) {
    const int64_t begin = g * size.group_units * kUnit, width = size.group_units * kUnit;
    const int64_t count = a.in_features - begin < width ? a.in_features - begin : width;
    read(a.x, a.x_dtype, x_begin + begin, count, values);
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
      sum += quantize_unit<Planes>(values + u * kUnit, inverse, out, kUnit);
    }
    tile.sums[g * tile_rows + row] = sum;
  }
}

// Memory of one thread, which only grows, so that a call allocates nothing.
template <typename T>
class Memory {
 public:
  ~Memory() { std::free(data_); }

  // Returns at least so many bytes, at a cache line's begin; null when there are not as many.
  T* get(int64_t bytes) {
    if (bytes > capacity_) {
      std::free(data_);
      capacity_ = (bytes + 63) / 64 * 64;
      data_ = std::aligned_alloc(64, static_cast<size_t>(capacity_));
      if (!data_) capacity_ = 0;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  int64_t capacity_ = 0;
};

// Returns where the activations of `rows` rows go; levels is null when there is no memory.
inline Activations activations(Memory<int8_t>& memory, const Sizes& size, int64_t rows, int planes) {
  const int64_t levels = rows * size.units * kUnit * planes, numbers = rows * size.groups;
  int8_t* q = memory.get(levels + numbers * int64_t(sizeof(float) + sizeof(int32_t)));
  auto* scales = reinterpret_cast<float*>(q + levels);
  return {q, scales, reinterpret_cast<int32_t*>(scales + numbers)};
}

// The part of the activations that holds the tile beginning at row `row`.
inline Activations tile_at(const Activations& all, const Sizes& size, int64_t row, int planes) {
  return {all.levels + row * size.units * kUnit * planes, all.scales + row * size.groups,
          all.sums + row * size.groups};
}

// The products of a block with a tile.
struct Results {
  float of[kTileRows][kBlock];
};

// Rows of the tile that begins at `row`.
inline int64_t tile_rows(int64_t rows, int64_t row) {
  return rows - row < kTileRows ? rows - row : kTileRows;
}

// Adds the bias to the results of a row with a block and writes them to y.
inline void finish_row(const LinearArguments& a, float* results, int64_t row, int64_t block) {
  const int64_t column = block * kBlock, rest = a.out_features - column;
  const int64_t count = rest < kBlock ? rest : kBlock;
  for (int64_t i = 0; a.bias && i < count; ++i) {
    results[i] += element(a.bias, a.bias_dtype, column + i);
  }
  const int64_t at = row * a.out_features + column;
  if (count == kBlock) {  // known to the compiler: one store
    write(results, a.x_dtype, at, kBlock, a.out);
  } else {
    write(results, a.x_dtype, at, count, a.out);
  }
}

// Quantizes rows [begin, begin + rows) of x in tiles of `Tile` rows. The last tile holds fewer, or,
// with `Padded`, leaves the rest of its rows as it is.
template <int Planes, int Tile, bool Padded>
void quantize(const LinearArguments& a, const Sizes& size, const Activations& all, int64_t begin,
              int64_t rows) {
  const int64_t tiles = (rows + Tile - 1) / Tile;
  parallel_for(tiles, 1, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first * Tile; row < rows && row < last * Tile; ++row) {
      const int64_t start = row - row % Tile;
      const int64_t count = Padded || rows - start > Tile ? Tile : rows - start;
      quantize_groups<Planes>(a, size, (begin + row) * a.x_stride, 0, size.groups,
                              tile_at(all, size, start, Planes), count, row - start);
    }
  });
}

// Rows of x worked on at once, a multiple of `tile`.
inline int64_t chunk_rows(const LinearArguments& a, const Sizes& size, int64_t tile) {
  const int64_t fit = kChunkBytes / (size.units * kUnit * a.planes) / tile * tile;
  const int64_t all = (a.rows + tile - 1) / tile * tile;
  return fit < tile ? tile : fit < all ? fit : all;
}

// Blocks that a thread takes at a time, at least.
inline int64_t piece_blocks(const Sizes& size, int64_t at_once) {
  const int64_t fit = kPieceBytes / size.block_bytes / at_once * at_once;
  return fit > at_once ? fit : at_once;
}

}  // namespace
}  // namespace glm::GLM_ISA
