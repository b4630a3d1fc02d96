// Many rows of x on AMX: tiles of 16 rows of x times 16 rows of the weight. Few rows are bound by
// reading the weight and stay on the vectors of AVX-512.
#define GLM_ISA amx
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes_avx512.h"
#include "activations.h"

namespace glm::avx512 {
int linear(const LinearArguments& arguments);
}

namespace glm::GLM_ISA {
namespace {

constexpr int kTile = 16;         // rows of x in a tile
constexpr int64_t kFewRows = 12;  // up to so many rows the vectors are as fast
constexpr int kVectors = kUnit / 4;  // of a unit with one byte for each level

// What tiles hold: 0 and 1 the sums of the planes, 2 and 3 activations, 4 levels.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, kUnit, kUnit, 64};
  uint8_t rows[16] = {kTile, kTile, kTile, kTile, kVectors};
};

// The processor's tiles belong to a thread while this lives.
class TileUse {
 public:
  TileUse() {
    const TileConfig config;
    _tile_loadconfig(&config);
  }
  ~TileUse() { _tile_release(); }
};

// Spreads the levels of a block over one signed byte each: [unit][8][64], columns in order.
template <int Bits>
void unpack_block(const uint8_t* packed, int64_t units, uint8_t* out) {
  const Bytes eight = _mm512_set1_epi8(8);
  for (int64_t v = 0; v < units * kUnit * Bits / 32; ++v) {
    const Bytes levels = load(packed + v * 64);
    if (Bits == 4) {
      _mm512_storeu_si512(out + v * 128, _mm512_sub_epi8(low(levels), eight));
      _mm512_storeu_si512(out + v * 128 + 64, _mm512_sub_epi8(high(levels), eight));
    } else {
      _mm512_storeu_si512(out + v * 64, levels);
    }
  }
}

// results[row][16] = the products of an unpacked block with a tile of 16 rows.
template <int Planes>
void multiply_tile(const LinearArguments& a, const Sizes& size, const uint8_t* levels,
                   int64_t block, const Activations& tile, float (*results)[kBlock]) {
  constexpr int64_t kRowStep = Planes * kUnit;
  const int64_t block_scales = a.group ? size.groups * kBlock : kBlock;
  const int8_t* q = tile.levels;
  alignas(64) int32_t sums[2][kTile][kBlock];
  Floats total[kTile];
  for (auto& row : total) row = zero();
  for (int64_t g = 0, unit = 0; g < size.groups; ++g) {
    _tile_zero(0);
    _tile_zero(1);
    const int64_t end = unit + size.group_units < size.units ? unit + size.group_units : size.units;
    for (; unit < end; ++unit, q += kTile * kRowStep, levels += kVectors * 64) {
      _tile_loadd(4, levels, 64);
      _tile_loadd(2, q, kRowStep);
      _tile_dpbssd(0, 2, 4);
      if (Planes == 2) {
        _tile_loadd(3, q + kUnit, kRowStep);
        _tile_dpbssd(1, 3, 4);
      }
    }
    _tile_stored(0, sums[0], 64);
    if (Planes == 2) _tile_stored(1, sums[1], 64);
    const int64_t at = block * block_scales + (a.group ? g * kBlock : 0);
    const Floats scale = a.group ? load_half(a.scales + at) : broadcast(1);
#pragma GCC unroll 16
    for (int r = 0; r < kTile; ++r) {
      Ints sum = _mm512_load_si512(sums[0][r]);
      if (Planes == 2) sum = join_planes(sum, _mm512_load_si512(sums[1][r]));
      if (a.zeros) sum = subtract_zeros(sum, a.zeros + at, tile.sums[g * kTile + r]);
      const Floats factor = multiply(scale, broadcast(tile.scales[g * kTile + r]));
      total[r] = multiply_add(to_float(sum), factor, total[r]);
    }
  }
  const Floats scale = a.group ? broadcast(1) : load_half(a.scales + block * kBlock);
  for (int r = 0; r < kTile; ++r) store(results[r], multiply(total[r], scale));
}

// A thread's buffer for the levels of a block; it only grows.
struct Unpacked {
  uint8_t* data = nullptr;
  int64_t capacity = 0;
  ~Unpacked() { std::free(data); }

  bool reserve(int64_t bytes) {
    if (bytes <= capacity) return true;
    std::free(data);
    data = static_cast<uint8_t*>(std::aligned_alloc(64, static_cast<size_t>(bytes)));
    capacity = data ? bytes : 0;
    return data != nullptr;
  }
};

// Computes rows [begin, begin + rows) of y; returns whether there was memory.
template <int Bits, int Planes>
bool linear_chunk(const LinearArguments& a, const Sizes& size, const Activations& all,
                  int64_t begin, int64_t rows) {
  quantize<Planes, kTile, true>(a, size, all, begin, rows);
  std::atomic<bool> ok{true};
  parallel_for(size.blocks, piece_blocks(size, 1), a.threads, [&](int64_t first, int64_t last) {
    static thread_local Unpacked unpacked;
    if (!unpacked.reserve(size.units * kVectors * 64)) {
      ok = false;
      return;
    }
    const TileUse use;
    for (int64_t block = first; block < last; ++block) {
      unpack_block<Bits>(a.levels + block * size.block_bytes, size.units, unpacked.data);
      for (int64_t row = 0; row < rows; row += kTile) {
        alignas(64) float results[kTile][kBlock];
        multiply_tile<Planes>(a, size, unpacked.data, block,
                                    tile_at(all, size, row, Planes), results);
        finish(a, results, begin + row, rows - row < kTile ? rows - row : kTile, block);
      }
    }
  });
  return ok;
}

template <int Bits, int Planes>
int linear_of(const LinearArguments& a) {
  static thread_local Workspace workspace;
  const Sizes size(a);
  const int64_t chunk = chunk_rows(a, size, kTile);
  const Activations all = workspace.activations(size, chunk, Planes);
  if (!all.levels) return 1;
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t rest = a.rows - begin;
    if (!linear_chunk<Bits, Planes>(a, size, all, begin, rest < chunk ? rest : chunk)) return 1;
  }
  return 0;
}

}  // namespace

// Whether the processor has int8 tiles and Linux lets this process use them.
bool permitted() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  constexpr unsigned kTileBits = (1u << 24) | (1u << 25);  // amx-tile, amx-int8
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTileBits) != kTileBits) return false;
#ifdef __linux__
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

int linear(const LinearArguments& a) {
  if (a.rows <= kFewRows) return avx512::linear(a);
  if (a.bits == 4) return a.planes == 2 ? linear_of<4, 2>(a) : linear_of<4, 1>(a);
  return a.planes == 2 ? linear_of<8, 2>(a) : linear_of<8, 1>(a);
}

}  // namespace glm::GLM_ISA
