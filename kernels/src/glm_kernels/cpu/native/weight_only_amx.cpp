// Many rows of x on AMX. Reading integer sums out of the tiles costs more than multiplying a group of
// 32 columns does, so spans of 512 columns are summed at once: x has one scale for each row of a span,
// and a weight in groups is brought to one scale for each of its rows, in 15 bits as well. Both are
// cut into planes of 7 bits, and the product of the two lower planes, at most 2^-14 of the largest, is
// left out. One plane of x would save little, so that 15 bits are what it always computes with. Fewer
// rows are multiplied group by group, see tiles.h.
#define GLM_ISA amx
#define GLM_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes_avx512.h"
#include "weight_only.h"
#include "amx_unpack.h"
#include "decode.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kChunkRows = 512;   // rows of x that an unpacked weight meets
constexpr int64_t kPanelPairs = 8;    // pairs of blocks whose results stay in the cache
// How the activations of a chunk of rows lie: levels [span][tile][step][plane][16][64], scales
// [span][tile][16].
struct Spans {
  int64_t spans, tiles, rows;
  int8_t* levels;
  float* scales;

  int8_t* tile_levels(int64_t span, int64_t tile) const {
    return levels + (span * tiles + tile) * kSpanSteps * 2 * kTileBytes;
  }
  float* tile_scales(int64_t span, int64_t tile) const {
    return scales + (span * tiles + tile) * kTile;
  }
};

int64_t steps_of(const LinearArguments& a, int64_t span) {
  const int64_t rest = a.in_features - span * kSpan;
  return rest >= kSpan ? kSpanSteps : (rest + kStep - 1) / kStep;
}

// Quantizes a span of a row of x into its tile.
void quantize_span(const LinearArguments& a, int64_t row, int64_t span, int8_t* out, float* scale) {
  alignas(64) float values[kSpan];
  const int64_t begin = span * kSpan, rest = a.in_features - begin, steps = steps_of(a, span);
  const int64_t count = rest < kSpan ? rest : kSpan;
  read(a.x, a.x_dtype, row * a.x_stride + begin, count, values);
  for (int64_t i = count; i < steps * kStep; ++i) values[i] = 0;
  float inverse;
  *scale = group_scale<2>(values, count, &inverse);
  if (inverse == 0) {
    for (int64_t i = 0; i < count; ++i) values[i] = 0;  // NaN * 0 is no integer
  }
  for (int64_t i = 0; i < steps * kStep; i += kUnit) {
    int8_t* to = out + i / kStep * 2 * kTileBytes + i % kStep;
    quantize_unit<2>(values + i, inverse, to, kTileBytes);
  }
}

void quantize_rows(const LinearArguments& a, const Spans& x, int64_t begin) {
  parallel_for(x.tiles, 1, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      for (int64_t span = 0; span < x.spans; ++span) {
        for (int64_t r = 0; r < kTile && tile * kTile + r < x.rows; ++r) {
          quantize_span(a, begin + tile * kTile + r, span, x.tile_levels(span, tile) + r * kStep,
                        x.tile_scales(span, tile) + r);
        }
      }
    }
  });
}

// totals[block][row][16] gets, or has added, the products of a span of two blocks with a tile.
template <int Planes>
void multiply_span(const int8_t* x, const float* x_scales, const uint8_t* weight,
                   const float (*places)[kBlock], int64_t steps, bool is_first,
                   float* const (&totals)[2]) {
  alignas(64) int32_t sums[2][2][kTile][kBlock];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s, x += 2 * kTileBytes, weight += kStepBytes) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, weight, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(5, x + kTileBytes, 64);
    _tile_dpbssd(1, 5, 6);
    if (Planes == 2) {
      _tile_loadd(7, weight + kTileBytes, 64);
      _tile_dpbssd(1, 4, 7);
    }
    _tile_loadd(6, weight + 2 * kTileBytes, 64);
    _tile_dpbssd(2, 4, 6);
    _tile_dpbssd(3, 5, 6);
    if (Planes == 2) {
      _tile_loadd(7, weight + 3 * kTileBytes, 64);
      _tile_dpbssd(3, 4, 7);
    }
  }
  _tile_stored(0, sums[0][0], 64);
  _tile_stored(1, sums[0][1], 64);
  _tile_stored(2, sums[1][0], 64);
  _tile_stored(3, sums[1][1], 64);
  // of the upper planes of both 2^14, of an upper and a lower one 2^7; one alone stands for itself
  constexpr float kPlace = Planes == 2 ? 128 : 1;
  for (int b = 0; b < 2; ++b) {
    const Floats place = multiply(load_floats(places[b]), broadcast(kPlace));
    for (int r = 0; r < kTile; ++r) {
      const Floats upper = to_float(_mm512_load_si512(sums[b][0][r]));
      const Floats lower = to_float(_mm512_load_si512(sums[b][1][r]));
      const Floats sum = multiply_add(upper, broadcast(128), lower);
      const Floats factor = multiply(place, broadcast(x_scales[r]));
      float* total = totals[b] + r * kBlock;
      store(total, multiply_add(sum, factor, is_first ? zero() : load_floats(total)));
    }
  }
}

// A thread's own memory: the levels of a span of two blocks, and the results of a panel.
struct PanelBuffers {
  alignas(64) uint8_t levels[kSpanSteps * kStepBytes];
  alignas(64) float places[2][kBlock];
  alignas(64) float totals[2 * kPanelPairs][kChunkRows][kBlock];
};

// Computes the results of some pairs of blocks, at most kPanelPairs.
template <int Bits, int Planes>
void linear_panel(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t begin,
                  int64_t first, int64_t last, PanelBuffers& own) {
  for (int64_t span = 0; span < x.spans; ++span) {
    for (int64_t pair = first; pair < last; ++pair) {
      for (int64_t b = 0; b < 2 && 2 * pair + b < size.blocks; ++b) {
        const auto unpack = a.zeros ? unpack_span<Bits, Planes, true>
                                    : unpack_span<Bits, Planes, false>;
        unpack(a, size, 2 * pair + b, span, own.levels + b * 2 * kTileBytes, own.places[b]);
      }
      auto* totals = own.totals + 2 * (pair - first);
      for (int64_t tile = 0; tile < x.tiles; ++tile) {
        float* const at[2] = {totals[0][tile * kTile], totals[1][tile * kTile]};
        multiply_span<Planes>(x.tile_levels(span, tile), x.tile_scales(span, tile), own.levels,
                              own.places, steps_of(a, span), span == 0, at);
      }
    }
  }
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t block = 2 * first; block < 2 * last && block < size.blocks; ++block) {
      finish_row(a, own.totals[block - 2 * first][r], begin + r, block);
    }
  }
}

// Computes rows [begin, begin + x.rows) of y; returns whether there was memory.
template <int Bits, int Planes>
bool linear_span_chunk(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t begin) {
  quantize_rows(a, x, begin);
  const int64_t pairs = (size.blocks + 1) / 2, share = pairs / (3 * a.threads) + 1;
  const int64_t panel = share < kPanelPairs ? share : kPanelPairs;
  std::atomic<bool> ok{true};
  parallel_for(pairs, panel, a.threads, [&](int64_t first, int64_t last) {
    static thread_local Memory<PanelBuffers> memory;
    PanelBuffers* own = memory.get(sizeof(PanelBuffers));
    if (!own) {
      ok = false;
      return;
    }
    static constexpr TileConfig config(kTile, kStep);
    const TileUse use(config);
    for (int64_t pair = first; pair < last; pair += panel) {
      const int64_t end = pair + panel < last ? pair + panel : last;
      linear_panel<Bits, Planes>(a, size, x, begin, pair, end, *own);
    }
  });
  return ok;
}

template <int Bits, int Planes>
int linear_spans(const LinearArguments& a) {
  static thread_local Memory<int8_t> memory;
  const Sizes size(a);
  const int64_t chunk = a.rows < kChunkRows ? a.rows : kChunkRows;
  Spans x{(a.in_features + kSpan - 1) / kSpan, (chunk + kTile - 1) / kTile, 0, nullptr, nullptr};
  const int64_t levels = x.spans * x.tiles * kSpanSteps * 2 * kTileBytes;
  x.levels = memory.get(levels + x.spans * x.tiles * kTile * int64_t(sizeof(float)));
  if (!x.levels) return 1;
  x.scales = reinterpret_cast<float*>(x.levels + levels);
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    x.rows = a.rows - begin < chunk ? a.rows - begin : chunk;
    x.tiles = (x.rows + kTile - 1) / kTile;
    if (!linear_span_chunk<Bits, Planes>(a, size, x, begin)) return 1;
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

// Up to so many rows a group at a time is as fast: measured with 16 to 128 rows.
int64_t few_rows(int32_t group) { return group == 32 ? 24 : group == 64 ? 64 : 128; }

int linear(const LinearArguments& a) {
  if (a.rows <= few_rows(a.group)) return linear_few(a);
  const bool is_exact = !a.group && !a.zeros;  // the levels are what is multiplied
  if (a.bits == 4) return is_exact ? linear_spans<4, 1>(a) : linear_spans<4, 2>(a);
  return is_exact ? linear_spans<8, 1>(a) : linear_spans<8, 2>(a);
}

}  // namespace glm::GLM_ISA
