// Many rows of x on AMX. Reading integer sums out of the tiles costs more than multiplying a group of
// 32 columns does, so spans of 512 columns are summed at once: x has one scale for each row of a span,
// and a weight in groups is brought to one scale for each of its rows, in 15 bits as well. Both are
// cut into planes of 7 bits, and the product of the two lower planes, at most 2^-14 of the largest, is
// left out. One plane of x would save little, so that 15 bits are what it always computes with. Few
// rows are bound by reading the weight and stay on the vectors of AVX-512.
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

constexpr int kTile = 16;             // rows of x in a tile
constexpr int64_t kStep = 64;         // columns of a tile
constexpr int64_t kSpan = 512;        // columns that are summed as integers
constexpr int64_t kSpanSteps = kSpan / kStep;
constexpr int64_t kTileBytes = kTile * kStep;
constexpr int64_t kStepBytes = 4 * kTileBytes;  // two planes of two blocks of the weight
constexpr int64_t kChunkRows = 512;   // rows of x that an unpacked weight meets
constexpr int64_t kPanelPairs = 8;    // pairs of blocks whose results stay in the cache
constexpr int64_t kFewRows = 8;       // up to so many rows the vectors are as fast
constexpr int64_t kFewRows8Bits = 16;  // the same when they may round to 8 bits
constexpr float kTop = 127 * 128;

// What tiles hold: 0 and 1 the sums of a block, 2 and 3 of another, 4 and 5 activations, 6 and 7
// levels. All have 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kTile, kTile, kTile, kTile, kTile, kTile, kTile, kTile};
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

// One plane of the products of levels with the scales of their rows lies on the other, `kTileBytes`
// apart. The levels are shifted to the top of 16 bits, those of even and odd columns apart.
inline void split(Bytes even, Bytes odd, Bytes scale, uint8_t* out) {
  constexpr int kChoose = 0xca;  // a ? b : c
  const Bytes half = _mm512_set1_epi16(64), first = _mm512_set1_epi16(255);
  const Bytes e = _mm512_add_epi16(_mm512_mulhrs_epi16(even, scale), half);
  const Bytes o = _mm512_add_epi16(_mm512_mulhrs_epi16(odd, scale), half);
  // upper = (v + 64) >> 7, lower = ((v + 64) & 127) - 64
  const Bytes e_twice = _mm512_add_epi16(e, e), o_twice = _mm512_add_epi16(o, o);
  const Bytes upper =
      _mm512_ternarylogic_epi32(first, _mm512_srli_epi16(e_twice, 8), o_twice, kChoose);
  const Bytes both = _mm512_ternarylogic_epi32(first, e, _mm512_slli_epi16(o, 8), kChoose);
  const Bytes lower = _mm512_sub_epi8(_mm512_and_si512(both, _mm512_set1_epi8(127)),
                                      _mm512_set1_epi8(64));
  _mm512_store_si512(out, upper);
  _mm512_store_si512(out + kTileBytes, lower);
}

// Vectors of the unpacked weight for one of the packed one.
template <int Bits, int Planes, bool Zeros>
inline void unpack_vector(Bytes packed, Bytes scale, Bytes zero, __m128i down, uint8_t* out) {
  if constexpr (Planes == 1) {
    const Bytes eight = _mm512_set1_epi8(8);
    _mm512_store_si512(out, Bits == 4 ? _mm512_sub_epi8(low(packed), eight) : packed);
    if (Bits == 4) _mm512_store_si512(out + 64, _mm512_sub_epi8(high(packed), eight));
  } else {
    const auto level = [&](Bytes v) {
      constexpr int kAndXor = 0x6a;  // (a & b) ^ c
      const Bytes top = _mm512_set1_epi16(Bits == 4 ? int16_t(0xf000) : int16_t(0xff00));
      const Bytes sign = _mm512_set1_epi16(Bits == 4 ? int16_t(0x8000) : 0);
      v = _mm512_ternarylogic_epi32(v, top, sign, kAndXor);
      return Zeros ? _mm512_sub_epi16(_mm512_sra_epi16(v, down), zero) : v;
    };
    if (Bits == 4) {
      split(level(_mm512_slli_epi16(packed, 12)), level(_mm512_slli_epi16(packed, 4)), scale, out);
      split(level(_mm512_slli_epi16(packed, 8)), level(packed), scale, out + 64);
    } else {
      split(level(_mm512_slli_epi16(packed, 8)), level(packed), scale, out);
    }
  }
}

// How far levels minus zero points reach, a power of two.
template <int Bits>
int reach_of(const int8_t* zeros, int64_t count) {
  int largest = 0;
  for (int64_t i = 0; zeros && i < count; ++i) {
    const int z = zeros[i] < 0 ? -zeros[i] : zeros[i];
    largest = z > largest ? z : largest;
  }
  if (Bits == 8) return largest ? 256 : 128;
  return largest == 0 ? 8 : largest <= 8 ? 16 : 256;
}

// Both halves of each 32-bit lane get its value, |v| < 2^15.
inline Bytes twice(Ints v) {
  return _mm512_or_si512(_mm512_and_si512(v, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(v, 16));
}

// Unpacks a span of a block to [step][2 blocks][plane][16][64], of which this is one block, and sets
// the value of the last place for each of its rows.
template <int Bits, int Planes, bool Zeros>
void unpack_span(const LinearArguments& a, const Sizes& size, int64_t block, int64_t span,
                 uint8_t* out, float* places) {
  constexpr int64_t kVectorColumns = 32 / Bits;
  const int64_t first = span * kSpan / kUnit, rest = size.units - first;
  const int64_t units = rest < kSpan / kUnit ? rest : kSpan / kUnit;
  const uint8_t* from = a.levels + block * size.block_bytes + first * kUnit * kBlock * Bits / 8;
  const int64_t groups = (units + size.group_units - 1) / size.group_units;
  const int64_t at = (a.group ? (block * size.groups + first / size.group_units) : block) * kBlock;
  const int64_t step = a.group ? kBlock : 0;
  Floats largest = zero();
  for (int64_t g = 0; g < groups; ++g) {
    largest = _mm512_max_ps(largest, _mm512_abs_ps(load_half(a.scales + at + g * step)));
  }
  const int reach = reach_of<Bits>(a.zeros ? a.zeros + at : nullptr, step ? groups * step : kBlock);
  const int log_reach = __builtin_ctz(reach), up = 15 - log_reach;
  const __m128i down = _mm_cvtsi32_si128(log_reach - (Bits - 1));
  const __mmask16 some = _mm512_cmp_ps_mask(largest, zero(), _CMP_NEQ_OQ);
  const Floats inverse = _mm512_maskz_div_ps(some, broadcast(kTop), largest);
  store(places, Planes == 1 ? load_half(a.scales + at) : multiply(largest, broadcast(reach / kTop)));
  for (int64_t g = 0; g < groups; ++g) {
    const Floats scale = multiply(load_half(a.scales + at + g * step), inverse);
    Ints zeros = splat(0);
    if (Zeros) zeros = subtract_zeros(zeros, a.zeros + at + g * step, -(1 << up));
    const Bytes scale_twice = twice(_mm512_cvtps_epi32(scale)), zeros_twice = twice(zeros);
    const int64_t begin = g * size.group_units * kUnit, width = size.group_units * kUnit;
    const int64_t end = begin + width < units * kUnit ? begin + width : units * kUnit;
    for (int64_t c = begin; c < end; c += kVectorColumns, from += 64) {
      uint8_t* to = out + c / kStep * kStepBytes + c % kStep / 4 * 64;
      unpack_vector<Bits, Planes, Zeros>(load(from), scale_twice, zeros_twice, down, to);
    }
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

// A thread's own memory: the levels of a span of two blocks, and the results of a panel.
struct Buffers {
  alignas(64) uint8_t levels[kSpanSteps * kStepBytes];
  alignas(64) float places[2][kBlock];
  alignas(64) float totals[2 * kPanelPairs][kChunkRows][kBlock];
};

// Computes the results of some pairs of blocks, at most kPanelPairs.
template <int Bits, int Planes>
void linear_panel(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t begin,
                  int64_t first, int64_t last, Buffers& own) {
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
bool linear_chunk(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t begin) {
  quantize_rows(a, x, begin);
  const int64_t pairs = (size.blocks + 1) / 2, share = pairs / (3 * a.threads) + 1;
  const int64_t panel = share < kPanelPairs ? share : kPanelPairs;
  std::atomic<bool> ok{true};
  parallel_for(pairs, panel, a.threads, [&](int64_t first, int64_t last) {
    static thread_local Memory<Buffers> memory;
    Buffers* own = memory.get(sizeof(Buffers));
    if (!own) {
      ok = false;
      return;
    }
    const TileUse use;
    for (int64_t pair = first; pair < last; pair += panel) {
      const int64_t end = pair + panel < last ? pair + panel : last;
      linear_panel<Bits, Planes>(a, size, x, begin, pair, end, *own);
    }
  });
  return ok;
}

template <int Bits, int Planes>
int linear_of(const LinearArguments& a) {
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
    if (!linear_chunk<Bits, Planes>(a, size, x, begin)) return 1;
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
  if (a.rows <= (a.planes == 2 ? kFewRows : kFewRows8Bits)) return avx512::linear(a);
  const bool is_exact = !a.group && !a.zeros;  // the levels are what is multiplied
  if (a.bits == 4) return is_exact ? linear_of<4, 1>(a) : linear_of<4, 2>(a);
  return is_exact ? linear_of<8, 1>(a) : linear_of<8, 2>(a);
}

}  // namespace glm::GLM_ISA
