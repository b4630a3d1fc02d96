// Attention of one new column over the cache, whose columns are cut into pieces for the threads.
// Included for each instruction set.
#pragma once

#include <algorithm>

#include "decode_attention.h"

namespace glm::GLM_ISA {
namespace {

constexpr int kShareHeads = 16;  // that one thread works on together, at most
constexpr int64_t kLeastPiece = 512, kMostPieces = 16;  // columns of a piece; pieces of a row

// Where heads stand in a row of the fused projection.
struct HeadPlaces {
  int64_t query, key, value;  // of a query head, and of the key/value head that it asks

  HeadPlaces(const DecodeModel& m, int64_t head) {
    const int64_t group = m.num_heads / m.num_kv_heads, kv_head = head / group;
    if (m.interleaved_heads) {
      query = (head + 2 * kv_head) * m.head_dim;
      key = (kv_head + 1) * group * m.head_dim + 2 * kv_head * m.head_dim;
      value = key + m.head_dim;
    } else {
      query = head * m.head_dim;
      key = (m.num_heads + kv_head) * m.head_dim;
      value = key + m.num_kv_heads * m.head_dim;
    }
  }
};

// A row's columns, cut into pieces that do not depend on who computes them.
struct Pieces {
  int64_t count, columns;

  explicit Pieces(int64_t length) {
    const int64_t most = (length + kLeastPiece - 1) / kLeastPiece;
    count = most < 1 ? 1 : most < kMostPieces ? most : kMostPieces;
    columns = ((length + count - 1) / count + kPageColumns - 1) / kPageColumns * kPageColumns;
  }
};

// Where the column `c` of a row's text lies in a cache, for a key/value head.
inline int64_t place_of(const DecodeModel& m, const DecodeStep& s, int64_t row, int64_t kv_head,
                        int64_t c) {
  const int64_t column = s.pages[row][c / kPageColumns] + c % kPageColumns;
  return (column * m.num_kv_heads + kv_head) * m.head_dim;
}

// Stores the new key and value of a key/value head of a row.
//
// qkv: the row of the fused projection.
template <int Dtype>
void store_new(const DecodeModel& m, const DecodeStep& s, int64_t layer, int64_t row,
               int64_t kv_head, const float* qkv, bool rotates) {
  const int64_t at = place_of(m, s, row, kv_head, s.lengths[row]);
  const HeadPlaces places(m, kv_head * (m.num_heads / m.num_kv_heads));
  float key[kMostHeadDim];
  std::memcpy(key, qkv + places.key, m.head_dim * sizeof(float));
  if (rotates) rotate(m, s.positions + 2 * row, key);
  store_cache<Dtype>(key, m.head_dim, s.keys[layer], at);
  store_cache<Dtype>(qkv + places.value, m.head_dim, s.values[layer], at);
}

// What an item of the attention's work is: some tiles of query heads of a row, each of one key/value
// head, and a piece of the columns.
struct Share {
  int64_t layer, row, first_tile, tiles, begin, end;
};

// The softmax of a piece: [num_heads, head_dim] not yet divided by the totals, [num_heads] each.
struct Partial {
  float *out, *tops, *totals;
};

// Attention of a share's tiles of `Heads` query heads over its piece. Where there is but one piece,
// the result, else what `merge` makes it of.
template <int Dtype, int Heads>
class Attend {
 public:
  // qkv: the row of the fused projection that has the queries.
  Attend(const DecodeModel& m, const DecodeStep& s, const Share& share, const float* qkv,
         bool rotates)
      : m_(m), s_(s), a_(share) {
    for (int64_t t = 0; t < a_.tiles; ++t) {
      for (int h = 0; h < Heads; ++h) {
        ask(qkv + HeadPlaces(m, head(t) + h).query, rotates, queries_[t][h]);
        softmax_[t].top[h] = kLowest;
        softmax_[t].total[h] = 0;
        std::memset(softmax_[t].out[h], 0, m.head_dim * sizeof(float));
      }
    }
  }

  void run() {
    see(a_.begin, s_.front < a_.end ? s_.front : a_.end);
    const int64_t first = s_.first[a_.row];
    see(first > a_.begin ? first : a_.begin, a_.end);
  }

  void finish(bool is_all, const Partial& partial) const {
    const int64_t H = m_.head_dim;
    for (int64_t i = 0; i < a_.tiles * Heads; ++i) {
      const Softmax<Heads>& softmax = softmax_[i / Heads];
      const float total = softmax.total[i % Heads], share = is_all ? 1.0f / total : 1.0f;
      float* out = partial.out + (head(0) + i) * H;
      for (int64_t j = 0; j < H; ++j) out[j] = softmax.out[i % Heads][j] * share;
      if (is_all) continue;
      partial.tops[head(0) + i] = softmax.top[i % Heads];
      partial.totals[head(0) + i] = total;
    }
  }

 private:
  int64_t head(int64_t tile) const { return (a_.first_tile + tile) * Heads; }

  // Where the column `c` of a tile's key/value head lies in the cache.
  int64_t column(int64_t tile, int64_t c) const {
    return place_of(m_, s_, a_.row, head(tile) / (m_.num_heads / m_.num_kv_heads), c);
  }

  void ask(const float* from, bool rotates, float* query) const {
    std::memcpy(query, from, m_.head_dim * sizeof(float));
    if (rotates) rotate(m_, s_.positions + 2 * a_.row, query);
    for (int64_t i = 0; i < m_.head_dim; ++i) query[i] *= m_.score_scale;
  }

  // A page at a time, of all tiles: those of a key/value head are near from the second on, and
  // those of several lie side by side.
  void see(int64_t begin, int64_t end) {
    for (int64_t c = begin, rest; c < end; c = rest) {
      rest = (c / kPageColumns + 1) * kPageColumns;
      const int64_t count = (rest < end ? rest : end) - c;
      for (int64_t t = 0; t < a_.tiles; ++t) {
        const bool is_last = t + 1 == a_.tiles;
        const int64_t at = column(t, c);
        const int64_t next = !is_last ? column(t + 1, c) : rest < end ? column(0, rest) : at;
        over(t, at, count, next - at);
      }
    }
  }

  void over(int64_t tile, int64_t at, int64_t count, int64_t ahead) {
    const int64_t step = m_.num_kv_heads * m_.head_dim;
    float scores[Heads][kPageColumns];
    const float* q[Heads];
    for (int h = 0; h < Heads; ++h) q[h] = queries_[tile][h];
    score<Dtype, Heads>(q, s_.keys[a_.layer], at, step, count, m_.head_dim, scores, ahead);
    weigh<Heads>(softmax_[tile], scores, count, m_.head_dim);
    gather<Dtype, Heads>(softmax_[tile], scores, s_.values[a_.layer], at, step, count, m_.head_dim,
                         ahead);
  }

  const DecodeModel& m_;
  const DecodeStep& s_;
  const Share& a_;
  float queries_[kShareHeads / Heads][Heads][kMostHeadDim];
  Softmax<Heads> softmax_[kShareHeads / Heads];
};

template <int Dtype, int Heads>
void attend_as(const DecodeModel& m, const DecodeStep& s, const Share& share, const float* qkv,
               bool rotates, bool is_all, const Partial& partial) {
  Attend<Dtype, Heads> attend(m, s, share, qkv, rotates);
  attend.run();
  attend.finish(is_all, partial);
}

// How many query heads are worked on at once.
inline int64_t heads_at_once(const DecodeModel& m) {
  const int64_t group = m.num_heads / m.num_kv_heads;
  return group % kTileHeads == 0 ? kTileHeads : group % 2 == 0 ? 2 : 1;
}

template <int Dtype>
void attend(const DecodeModel& m, const DecodeStep& s, const Share& share, const float* qkv,
            bool rotates, bool is_all, const Partial& partial) {
  const int64_t heads = heads_at_once(m);
  const auto of = heads == 4   ? attend_as<Dtype, 4>
                  : heads == 2 ? attend_as<Dtype, 2>
                               : attend_as<Dtype, 1>;
  of(m, s, share, qkv, rotates, is_all, partial);
}

// out = columns [begin, begin + count) of the heads of a row, from what its pieces gave.
inline void merge(const DecodeModel& m, const Partial* pieces, int64_t num_pieces, int64_t begin,
                  int64_t count, float* out) {
  for (int64_t i = begin, end; i < begin + count; i = end) {
    const int64_t head = i / m.head_dim, stop = (head + 1) * m.head_dim;
    end = stop < begin + count ? stop : begin + count;
    float top = kLowest, total = 0;
    for (int64_t p = 0; p < num_pieces; ++p) top = std::max(top, pieces[p].tops[head]);
    for (int64_t p = 0; p < num_pieces; ++p) {
      total += pieces[p].totals[head] * exponential(pieces[p].tops[head] - top);
    }
    for (int64_t j = i; j < end; ++j) out[j - begin] = 0;
    for (int64_t p = 0; p < num_pieces; ++p) {
      const float share = exponential(pieces[p].tops[head] - top) / total;
      for (int64_t j = i; j < end; ++j) out[j - begin] += pieces[p].out[j] * share;
    }
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
