// The linear layers of a decode step: their input prepared and quantized, and multiplied by what
// suits the weight and the number of rows. Included once for each instruction set.
#pragma once

#include "decode_buffers.h"
#include "decode_plain.h"
#include "team.h"

namespace glm::GLM_ISA {
namespace {

#ifdef GLM_TILES
constexpr int kPairsAtOnce = 4;      // pairs of blocks whose results are on a thread's stack
#endif
constexpr int64_t kStepPieceBytes = 1 << 14;  // of a matrix: what a thread takes at a time, at least

// A thread's way through the products of a step.
class Products {
 public:
  Products(const DecodeModel& model, const DecodeStep& step, const Buffers& buffers)
      : m_(model), s_(step), b_(buffers), team_(buffers.phases, step.threads) {}

 protected:
  // Calls body(row, begin, count) for parts of rows of so many columns, at most `Part` in each.
  template <int64_t Part = kChunk, typename Body>
  void each_part(int64_t rows, int64_t columns, const Body& body) {
    const int64_t parts = (columns + Part - 1) / Part;
    team_.each(rows * parts, kPartPiece, [&](int64_t first, int64_t last) {
      for (int64_t item = first; item < last; ++item) {
        const int64_t begin = item % parts * Part;
        body(item / parts, begin, columns - begin < Part ? columns - begin : Part);
      }
    });
  }

  // Calls fill(row, begin, count) for parts of the input x of a product, and quantizes them.
  template <typename Fill>
  void prepare(const Matrix& matrix, const float* x, int64_t rows, const Fill& fill) {
    LinearArguments a = as_arguments(matrix, rows);
    a.x = x;
#ifdef GLM_TILES
    if (multiplies_spans(a)) {
      const Spans spans = spans_of(a, rows, b_.quantized);
      return each_part<kSpan>(rows, matrix.in_features, [&](int64_t row, int64_t begin, int64_t count) {
        for (int64_t i = 0; i < count; i += kChunk) {
          fill(row, begin + i, count - i < kChunk ? count - i : kChunk);
        }
        quantize_span(a, spans, row, row, begin / kSpan);
      });
    }
#endif
    const Sizes size(a);
    const Activations all = quantized_of(a, size, b_.quantized);
    const int64_t groups = kChunk / (size.group_units * kUnit);
    each_part(rows, matrix.in_features, [&](int64_t row, int64_t begin, int64_t count) {
      fill(row, begin, count);
      if (matrix.bits == 0) return;
      const int64_t tile = row - row % kTileRows, in_tile = tile_rows(rows, tile);
      const int64_t group = begin / kChunk * groups;
      const int64_t end = group + groups < size.groups ? group + groups : size.groups;
      quantize_groups<kPlanes>(a, size, row * matrix.in_features, group, end,
                               tile_at(all, size, tile, kPlanes), in_tile, row - tile);
    });
  }

  // out = x W^T + bias (+ scale * base); x is what `prepare` has filled and quantized.
  void product(const Matrix& matrix, const float* x, float* out, int64_t rows,
               const float* base = nullptr, float scale = 0) {
    const auto finish = [&](const float* sums, int64_t row, int64_t column, int64_t count) {
      const float* bias = matrix.bias ? matrix.bias + column : nullptr;
      const int64_t at = row * matrix.out_features + column;
      if (count == kBlock) {
        Floats sum = load_floats(sums);
        if (bias) sum = multiply_add(load_floats(bias), broadcast(1), sum);
        if (base) sum = multiply_add(load_floats(base + at), broadcast(scale), sum);
        return store(out + at, sum);
      }
      for (int64_t i = 0; i < count; ++i) {
        const float sum = bias ? sums[i] + bias[i] : sums[i];
        out[at + i] = base ? base[at + i] * scale + sum : sum;
      }
    };
    if (matrix.bits == 4) return packed_product<4>(matrix, rows, finish);
    if (matrix.bits == 8) return packed_product<8>(matrix, rows, finish);
    plain_product(matrix, x, rows, finish);
  }

  template <int Bits, typename Finish>
  void packed_product(const Matrix& matrix, int64_t rows, const Finish& finish) {
    const LinearArguments a = as_arguments(matrix, rows);
#ifdef GLM_TILES
    if (multiplies_spans(a)) {
      return is_one_plane(a) ? span_product<Bits, 1>(matrix, a, finish) : span_product<Bits, 2>(matrix, a, finish);
    }
#endif
    const Sizes size(a);
    const Activations all = quantized_of(a, size, b_.quantized);
    const int64_t at_once = blocks_at_once(rows);
    const int64_t piece = (kStepPieceBytes / size.block_bytes / at_once + 1) * at_once;
    team_.each(size.blocks, piece, [&](int64_t first, int64_t last) {
      each_product<Bits, kPlanes>(a, size, all, rows, first, last, in_columns(matrix, finish));
    });
  }

  // Calls finish(results, row, column, count) for the results of a row with a block.
  template <typename Finish>
  static auto in_columns(const Matrix& matrix, const Finish& finish) {
    return [&](const float* results, int64_t row, int64_t block) {
      const int64_t column = block * kBlock, rest = matrix.out_features - column;
      finish(results, row, column, rest < kBlock ? rest : kBlock);
    };
  }

#ifdef GLM_TILES
  template <int Bits, int Planes, typename Finish>
  void span_product(const Matrix& matrix, const LinearArguments& a, const Finish& finish) {
    const Sizes size(a);
    const Spans x = spans_of(a, a.rows, b_.quantized);
    const int64_t pairs = (size.blocks + 1) / 2;
    team_.each(pairs, 1, [&](int64_t first, int64_t last) {
      PanelBuffers<kPairsAtOnce, kMostSpanRows> own;
      static constexpr TileConfig config(kTile, kStep);
      const TileUse use(config);
      for (int64_t pair = first; pair < last; pair += kPairsAtOnce) {
        const int64_t end = std::min(pair + kPairsAtOnce, last);
        multiply_panel<Bits, Planes>(a, size, x, pair, end, own, in_columns(matrix, finish));
      }
    });
  }
#endif

  template <typename Finish>
  void plain_product(const Matrix& matrix, const float* x, int64_t rows, const Finish& finish) {
    const int64_t K = matrix.in_features, row_bytes = K * (matrix.dtype == kFloat32 ? 4 : 2);
    const int64_t piece = (kStepPieceBytes / row_bytes / kPlainRows + 1) * kPlainRows;
    const auto multiply_rows = matrix.dtype == kFloat32    ? multiply_plain_rows<kFloat32>
                               : matrix.dtype == kBFloat16 ? multiply_plain_rows<kBFloat16>
                                                           : multiply_plain_rows<kFloat16>;
    team_.each(matrix.out_features, piece, [&](int64_t first, int64_t last) {
      for (int64_t column = first; column < last; column += kPlainRows) {
        const int64_t count = last - column < kPlainRows ? last - column : kPlainRows;
        for (int64_t row = 0; row < rows; row += kPlainTile) {
          float sums[kPlainTile][kPlainRows];
          const int64_t tile = rows - row < kPlainTile ? rows - row : kPlainTile;
          multiply_rows(matrix, column, count, x + row * K, tile, sums);
          for (int64_t r = 0; r < tile; ++r) finish(sums[r], row + r, column, count);
        }
      }
    });
  }

  const DecodeModel& m_;
  const DecodeStep& s_;
  const Buffers& b_;
  Team team_;

 private:
  static constexpr int64_t kPartPiece = 4;
};

}  // namespace
}  // namespace glm::GLM_ISA
