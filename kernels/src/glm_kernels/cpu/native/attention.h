// Attention of a few queries over keys that each sees a part of: an interval, and the first `sink`.
// Included for each instruction set.
#pragma once

#include "decode_attention.h"
#include "ops_abi.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

// Columns that a query sees besides the sink.
struct Interval {
  int64_t start, stop;
};

inline int64_t clipped(int64_t v, int64_t least, int64_t most) {
  return v < least ? least : v > most ? most : v;
}

inline Interval interval_of(const AttentionArguments& a, int64_t row, int64_t t) {
  const int64_t at = row * a.bound_row + t, sink = clipped(a.sink, 0, a.columns);
  return {clipped(a.start[at], sink, a.columns), clipped(a.stop[at], sink, a.columns)};
}

// Queries that share a key/value head: query head and column of each, rows of one tile.
template <int Dtype, int Rows>
class Tile {
 public:
  Tile(const AttentionArguments& a, int64_t row, int64_t kv_head, int64_t first)
      : a_(a), group_(a.heads / a.kv_heads), row_(row), kv_head_(kv_head), first_(first) {
    const int64_t H = a.head_dim;
    for (int r = 0; r < Rows; ++r) {
      const int64_t from = row * a.q_row + column(r) * a.q_column + head(r) * a.q_head;
      for (int64_t i = 0; i < H; i += kLanes) {
        const Floats v = load_as<Dtype>(a.q, from + i);
        store(q_[r] + i, multiply(v, broadcast(a.scale)));
      }
      queries_[r] = q_[r];
      sees_[r] = interval_of(a, row, column(r));
      softmax_.top[r] = kLowest;
      softmax_.total[r] = 0;
      std::memset(softmax_.out[r], 0, H * sizeof(float));
    }
  }

  void run() {
    Interval all = sees_[0];
    bool alike = true;
    for (const Interval& s : sees_) {
      alike = alike && s.start == all.start && s.stop == all.stop;
      all = {s.start < all.start ? s.start : all.start, s.stop > all.stop ? s.stop : all.stop};
    }
    over({0, clipped(a_.sink, 0, a_.columns)}, true);
    over(all, alike);
    finish();
  }

 private:
  int64_t column(int r) const { return (first_ + r) / group_; }
  int64_t head(int r) const { return kv_head_ * group_ + (first_ + r) % group_; }

  void over(const Interval& columns, bool seen_by_all) {
    const int64_t H = a_.head_dim;
    float scores[Rows][kCacheColumns];
    for (int64_t c = columns.start; c < columns.stop; c += kCacheColumns) {
      const int64_t rest = columns.stop - c, count = rest < kCacheColumns ? rest : kCacheColumns;
      const int64_t k = row_ * a_.k_row + c * a_.k_column + kv_head_ * a_.k_head;
      const int64_t v = row_ * a_.v_row + c * a_.v_column + kv_head_ * a_.v_head;
      score<Dtype, Rows>(queries_, a_.keys, k, a_.k_column, count, H, scores);
      if (!seen_by_all) hide(c, count, kLowest, scores);
      weigh<Rows>(softmax_, scores, count, H);
      if (!seen_by_all) hide(c, count, 0, scores);
      gather<Dtype, Rows>(softmax_, scores, a_.values, v, a_.v_column, count, H);
    }
  }

  // Puts `filler` in place of what a query does not see.
  void hide(int64_t begin, int64_t count, float filler, float (*scores)[kCacheColumns]) const {
    for (int r = 0; r < Rows; ++r) {
      for (int64_t c = 0; c < count; ++c) {
        const bool seen = begin + c >= sees_[r].start && begin + c < sees_[r].stop;
        scores[r][c] = seen ? scores[r][c] : filler;
      }
    }
  }

  void finish() const {
    for (int r = 0; r < Rows; ++r) {
      const float share = softmax_.total[r] == 0 ? 0 : 1.0f / softmax_.total[r];
      const int64_t at = (row_ * a_.queries + column(r)) * a_.heads + head(r);
      void* out = offset(a_.out, Dtype, at * a_.head_dim);
      for (int64_t i = 0; i < a_.head_dim; i += kLanes) {
        const Floats v = load_floats(softmax_.out[r] + i);
        store_row<Dtype>(out, i, a_.head_dim, multiply(v, broadcast(share)));
      }
    }
  }

  const AttentionArguments& a_;
  const int64_t group_, row_, kv_head_, first_;
  float q_[Rows][kMostHeadDim];
  const float* queries_[Rows];
  Interval sees_[Rows];
  Softmax<Rows> softmax_;
};

// The queries of a key/value head, four at a time, then two, then one.
template <int Dtype>
void attend_queries(const AttentionArguments& a, int64_t item, int64_t tiles) {
  const int64_t queries = a.queries * (a.heads / a.kv_heads), whole = queries / kTileHeads;
  const int64_t tile = item % tiles, kv_head = item / tiles % a.kv_heads;
  const int64_t row = item / tiles / a.kv_heads;
  if (tile < whole) return Tile<Dtype, kTileHeads>(a, row, kv_head, tile * kTileHeads).run();
  const bool pair = queries % 4 >= 2 && tile == whole;
  if (pair) return Tile<Dtype, 2>(a, row, kv_head, whole * kTileHeads).run();
  Tile<Dtype, 1>(a, row, kv_head, queries - 1).run();
}

}  // namespace

void attention(const AttentionArguments& a) {
  const int64_t queries = a.queries * (a.heads / a.kv_heads);
  const int64_t tiles = queries / kTileHeads + queries % 4 / 2 + queries % 2;
  const int64_t piece = rows_worth_a_thread(a.columns * a.head_dim);
  parallel_for(a.batch * a.kv_heads * tiles, piece, a.threads, [&](int64_t first, int64_t last) {
    with_dtype(a.dtype, [&](auto dtype) {
      for (int64_t item = first; item < last; ++item) {
        attend_queries<decltype(dtype)::value>(a, item, tiles);
      }
    });
  });
}

}  // namespace glm::GLM_ISA
