// Many rows of x on AMX. Reading integer sums out of the tiles costs more than multiplying a group of
// 32 columns does, so spans of 512 columns are summed at once: x has one scale for each row of a span,
// and a weight in groups is brought to one scale for each of its rows, in 15 bits as well. Both are
// cut into planes of 7 bits, and the product of the two lower planes, at most 2^-14 of the largest, is
// left out. One plane of x would save little, so that 15 bits are what it always computes with. Fewer
// rows are multiplied group by group, see tiles.h.
#pragma once

#include "amx_unpack.h"
#include "tiles.h"

namespace glm::GLM_ISA {
namespace {

// Up to so many rows a group at a time is as fast: measured with 16 to 128 rows.
inline int64_t few_rows(int32_t group) { return group == 32 ? 24 : group == 64 ? 64 : 128; }

// One plane of a weight is enough where its levels are what is multiplied.
inline bool is_one_plane(const LinearArguments& a) { return !a.group && !a.zeros; }

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

// Where the activations of `rows` rows go, from `memory` on.
inline Spans spans_of(const LinearArguments& a, int64_t rows, void* memory) {
  Spans x{(a.in_features + kSpan - 1) / kSpan, (rows + kTile - 1) / kTile, rows,
          static_cast<int8_t*>(memory), nullptr};
  x.scales = reinterpret_cast<float*>(x.tile_levels(x.spans, 0));
  return x;
}

inline int64_t span_bytes(const LinearArguments& a, int64_t rows) {
  const int64_t spans = (a.in_features + kSpan - 1) / kSpan, tiles = (rows + kTile - 1) / kTile;
  return spans * tiles * (kSpanSteps * 2 * kTileBytes + kTile * int64_t{sizeof(float)});
}

inline int64_t steps_of(const LinearArguments& a, int64_t span) {
  const int64_t rest = a.in_features - span * kSpan;
  return rest >= kSpan ? kSpanSteps : (rest + kStep - 1) / kStep;
}

// Quantizes a span of a row of x into its tile. It is row `at` of the rows that the tiles hold.
inline void quantize_span(const LinearArguments& a, const Spans& x, int64_t row, int64_t at,
                          int64_t span) {
  int8_t* out = x.tile_levels(span, at / kTile) + at % kTile * kStep;
  float* scale = x.tile_scales(span, at / kTile) + at % kTile;
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

// A thread's own memory: the levels of a span of two blocks, and the results of a panel, which are at
// most `Pairs` pairs of blocks with `Rows` rows.
template <int Pairs, int Rows>
struct PanelBuffers {
  alignas(64) uint8_t levels[kSpanSteps * kStepBytes];
  alignas(64) float places[2][kBlock];
  alignas(64) float totals[2 * Pairs][Rows][kBlock];
};

// Calls finish(results, row, block) for the products of a panel, the pairs of blocks [first, last).
template <int Bits, int Planes, typename Own, typename Finish>
void multiply_panel(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t first,
                    int64_t last, Own& own, const Finish& finish) {
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
      finish(own.totals[block - 2 * first][r], r, block);
    }
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
