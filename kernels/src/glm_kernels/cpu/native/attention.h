// Attention of a few queries over keys that each sees a part of: an interval, and the first `sink`.
// Included for each instruction set.
#pragma once

#include "decode_attention.h"
#include "ops_abi.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kTilesAtOnce = 4;

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

// Some queries that share a key/value head, and their softmax so far.
template <int Dtype, int Rows>
class Tile {
 public:
  void start(const AttentionArguments& a, int64_t row, int64_t kv_head, int64_t first) {
    a_ = &a;
    row_ = row;
    kv_head_ = kv_head;
    first_ = first;
    for (int r = 0; r < Rows; ++r) start_query(r);
    all_ = sees_[0];
    alike_ = true;
    for (const Interval& s : sees_) {
      alike_ = alike_ && s.start == all_.start && s.stop == all_.stop;
      all_ = {s.start < all_.start ? s.start : all_.start, s.stop > all_.stop ? s.stop : all_.stop};
    }
  }

  const Interval& all() const { return all_; }

  // Adds the sink's columns, which every query sees.
  void add_sink(int64_t begin, int64_t end) { add(begin, end, true); }

  // Adds what the queries see of some other columns.
  void add_seen(int64_t begin, int64_t end) {
    begin = begin < all_.start ? all_.start : begin;
    end = end > all_.stop ? all_.stop : end;
    if (begin < end) add(begin, end, alike_);
  }

  void finish() const {
    for (int r = 0; r < Rows; ++r) {
      const float share = softmax_.total[r] == 0 ? 0 : 1.0f / softmax_.total[r];
      const int64_t at = (row_ * a_->queries + column(r)) * a_->heads + head(r);
      void* out = offset(a_->out, Dtype, at * a_->head_dim);
      for (int64_t i = 0; i < a_->head_dim; i += kLanes) {
        const Floats v = load_floats(softmax_.out[r] + i);
        store_row<Dtype>(out, i, a_->head_dim, multiply(v, broadcast(share)));
      }
    }
  }

 private:
  int64_t group() const { return a_->heads / a_->kv_heads; }
  int64_t column(int r) const { return (first_ + r) / group(); }
  int64_t head(int r) const { return kv_head_ * group() + (first_ + r) % group(); }

  void start_query(int r) {
    const AttentionArguments& a = *a_;
    const int64_t from = row_ * a.q_row + column(r) * a.q_column + head(r) * a.q_head;
    for (int64_t i = 0; i < a.head_dim; i += kLanes) {
      store(q_[r] + i, multiply(load_as<Dtype>(a.q, from + i), broadcast(a.scale)));
    }
    queries_[r] = q_[r];
    sees_[r] = interval_of(a, row_, column(r));
    softmax_.top[r] = kLowest;
    softmax_.total[r] = 0;
    std::memset(softmax_.out[r], 0, a.head_dim * sizeof(float));
  }

  void add(int64_t begin, int64_t end, bool seen_by_all) {
    const AttentionArguments& a = *a_;
    const int64_t H = a.head_dim, count = end - begin;
    const int64_t k = row_ * a.k_row + begin * a.k_column + kv_head_ * a.k_head;
    const int64_t v = row_ * a.v_row + begin * a.v_column + kv_head_ * a.v_head;
    float scores[Rows][kPageColumns];
    score<Dtype, Rows>(queries_, a.keys, k, a.k_column, count, H, scores);
    if (!seen_by_all) hide(begin, count, kLowest, scores);
    weigh<Rows>(softmax_, scores, count, H);
    if (!seen_by_all) hide(begin, count, 0, scores);
    gather<Dtype, Rows>(softmax_, scores, a.values, v, a.v_column, count, H);
  }

  // Puts `filler` in place of what a query does not see.
  void hide(int64_t begin, int64_t count, float filler, float (*scores)[kPageColumns]) const {
    for (int r = 0; r < Rows; ++r) {
      for (int64_t c = 0; c < count; ++c) {
        const bool seen = begin + c >= sees_[r].start && begin + c < sees_[r].stop;
        scores[r][c] = seen ? scores[r][c] : filler;
      }
    }
  }

  const AttentionArguments* a_;
  int64_t row_, kv_head_, first_;
  float q_[Rows][kMostHeadDim];
  const float* queries_[Rows];
  Interval sees_[Rows], all_;
  bool alike_;  // whether all queries see the same
  Softmax<Rows> softmax_;
};

// `count` tiles from query `first` of a key/value head on: keys and values come from memory once.
template <int Dtype, int Rows>
void attend_tiles(const AttentionArguments& a, int64_t row, int64_t kv_head, int64_t first,
                  int64_t count) {
  Tile<Dtype, Rows> tiles[Rows == kTileHeads ? kTilesAtOnce : 1];
  Interval all{a.columns, 0};
  for (int64_t t = 0; t < count; ++t) {
    tiles[t].start(a, row, kv_head, first + t * Rows);
    const Interval& seen = tiles[t].all();
    all = {seen.start < all.start ? seen.start : all.start, seen.stop > all.stop ? seen.stop
                                                                               : all.stop};
  }
  const int64_t sink = clipped(a.sink, 0, a.columns);
  for (int64_t c = 0; c < sink; c += kPageColumns) {
    const int64_t end = clipped(c + kPageColumns, 0, sink);
    for (int64_t t = 0; t < count; ++t) tiles[t].add_sink(c, end);
  }
  for (int64_t c = all.start; c < all.stop; c += kPageColumns) {
    for (int64_t t = 0; t < count; ++t) tiles[t].add_seen(c, c + kPageColumns);
  }
  for (int64_t t = 0; t < count; ++t) tiles[t].finish();
}

// How the queries of a key/value head are shared out: tiles of four, some at once; two; one.
struct Plan {
  int64_t queries, tiles, at_once, strips, items;

  explicit Plan(const AttentionArguments& a) : queries(a.queries * (a.heads / a.kv_heads)) {
    tiles = queries / kTileHeads;
    at_once = clipped(a.batch * a.kv_heads * tiles / (a.threads < 1 ? 1 : a.threads), 1,
                      kTilesAtOnce);
    strips = (tiles + at_once - 1) / at_once;
    items = strips + queries % kTileHeads / 2 + queries % 2;
  }
};

template <int Dtype>
void attend_item(const AttentionArguments& a, const Plan& plan, int64_t item) {
  const int64_t part = item % plan.items, kv_head = item / plan.items % a.kv_heads;
  const int64_t row = item / plan.items / a.kv_heads;
  if (part < plan.strips) {
    const int64_t tile = part * plan.at_once, rest = plan.tiles - tile;
    const int64_t count = rest < plan.at_once ? rest : plan.at_once;
    return attend_tiles<Dtype, kTileHeads>(a, row, kv_head, tile * kTileHeads, count);
  }
  const bool pair = plan.queries % kTileHeads >= 2 && part == plan.strips;
  if (pair) return attend_tiles<Dtype, 2>(a, row, kv_head, plan.tiles * kTileHeads, 1);
  attend_tiles<Dtype, 1>(a, row, kv_head, plan.queries - 1, 1);
}

}  // namespace

void attention(const AttentionArguments& a) {
  const Plan plan(a);
  const int64_t piece = rows_worth_a_thread(a.columns * a.head_dim);
  parallel_for(a.batch * a.kv_heads * plan.items, piece, a.threads,
               [&](int64_t first, int64_t last) {
                 with_dtype(a.dtype, [&](auto dtype) {
                   for (int64_t item = first; item < last; ++item) {
                     attend_item<decltype(dtype)::value>(a, plan, item);
                   }
                 });
               });
}

}  // namespace glm::GLM_ISA
