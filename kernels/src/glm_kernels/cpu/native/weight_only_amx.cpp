// Products of many rows on AMX, see spans.h, and of some, see tiles.h; and the decode step with both.
#define GLM_ISA amx
#define GLM_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lanes_avx512.h"
#include "weight_only.h"
#include "spans.h"
#include "decode.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kChunkRows = 512;  // rows of x that an unpacked weight meets
constexpr int64_t kPanelPairs = 8;   // pairs of blocks whose results stay in the cache
using Panel = PanelBuffers<kPanelPairs, kChunkRows>;

void quantize_rows(const LinearArguments& a, const Spans& x, int64_t begin) {
  parallel_for(x.tiles, 1, a.threads, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      for (int64_t span = 0; span < x.spans; ++span) {
        for (int64_t r = 0; r < kTile && tile * kTile + r < x.rows; ++r) {
          quantize_span(a, x, begin + tile * kTile + r, tile * kTile + r, span);
        }
      }
    }
  });
}

// Computes rows [begin, begin + x.rows) of y; returns whether there was memory.
template <int Bits, int Planes>
bool linear_span_chunk(const LinearArguments& a, const Sizes& size, const Spans& x, int64_t begin) {
  quantize_rows(a, x, begin);
  const int64_t pairs = (size.blocks + 1) / 2, share = pairs / (3 * a.threads) + 1;
  const int64_t panel = share < kPanelPairs ? share : kPanelPairs;
  std::atomic<bool> ok{true};
  parallel_for(pairs, panel, a.threads, [&](int64_t first, int64_t last) {
    static thread_local Memory<Panel> memory;
    Panel* own = memory.get(sizeof(Panel));
    if (!own) {
      ok = false;
      return;
    }
    static constexpr TileConfig config(kTile, kStep);
    const TileUse use(config);
    for (int64_t pair = first; pair < last; pair += panel) {
      const int64_t end = pair + panel < last ? pair + panel : last;
      multiply_panel<Bits, Planes>(a, size, x, pair, end, *own,
                                   [&](float* results, int64_t row, int64_t block) {
                                     finish_row(a, results, begin + row, block);
                                   });
    }
  });
  return ok;
}

template <int Bits, int Planes>
int linear_spans(const LinearArguments& a) {
  static thread_local Memory<int8_t> memory;
  const Sizes size(a);
  const int64_t chunk = a.rows < kChunkRows ? a.rows : kChunkRows;
  void* levels = memory.get(span_bytes(a, chunk));
  if (!levels) return 1;
  for (int64_t begin = 0; begin < a.rows; begin += chunk) {
    const int64_t rows = a.rows - begin < chunk ? a.rows - begin : chunk;
    const Spans x = spans_of(a, rows, levels);
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

int linear(const LinearArguments& a) {
  if (a.rows <= few_rows(a.group)) return linear_few(a);
  const bool one = is_one_plane(a);
  if (a.bits == 4) return one ? linear_spans<4, 1>(a) : linear_spans<4, 2>(a);
  return one ? linear_spans<8, 1>(a) : linear_spans<8, 2>(a);
}

}  // namespace glm::GLM_ISA
