// Attention of one new column over the cache. Included for each instruction set.
#pragma once

#include "decode_maths.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kMostHeadDim = 256;
constexpr int64_t kCacheColumns = 64;  // of the cache, worked on at once
constexpr int kTileHeads = 4;     // query heads of a key/value head that share its loads, at most

template <int Dtype>
inline Floats load_cache(const void* p, int64_t i) {
  if (Dtype == kFloat32) return load_floats(static_cast<const float*>(p) + i);
  const auto* half = static_cast<const uint16_t*>(p) + i;
  return Dtype == kBFloat16 ? load_bf16(half) : load_half(half);
}

// Rounds x to what the cache will hold.
template <int Dtype>
inline void round_as_cache(float* x, int64_t count) {
  for (int64_t i = 0; Dtype == kBFloat16 && i < count; ++i) x[i] = from_bf16(to_bf16(x[i]));
  for (int64_t i = 0; Dtype == kFloat16 && i < count; ++i) x[i] = from_fp16(to_fp16(x[i]));
}

template <int Dtype>
inline void store_cache(const float* x, int64_t count, void* p, int64_t begin) {
  auto* half = static_cast<uint16_t*>(p) + begin;
  for (int64_t i = 0; i < count; ++i) {
    if (Dtype == kFloat32) static_cast<float*>(p)[begin + i] = x[i];
    if (Dtype == kBFloat16) half[i] = to_bf16(x[i]);
    if (Dtype == kFloat16) half[i] = to_fp16(x[i]);
  }
}

// The softmax so far of some query heads: weights are relative to e^top.
template <int Heads>
struct Softmax {
  float top[Heads], total[Heads];
  float out[Heads][kMostHeadDim];
};

// Scores of cache columns [begin, begin + count) with some queries.
template <int Dtype, int Heads>
inline void score(const float* const* q, const void* keys, int64_t begin, int64_t step,
                  int64_t count, int64_t head_dim, float (*scores)[kCacheColumns]) {
  for (int64_t c = 0; c < count; ++c) {
    Floats sums[Heads];
    for (Floats& s : sums) s = zero();
    for (int64_t i = 0; i < head_dim; i += 16) {
      const Floats k = load_cache<Dtype>(keys, begin + c * step + i);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) sums[h] = multiply_add(load_floats(q[h] + i), k, sums[h]);
    }
    for (int h = 0; h < Heads; ++h) scores[h][c] = sum(sums[h]);
  }
}

// Turns scores into weights, relative to the top so far, and rescales what came before.
template <int Heads>
inline void weigh(Softmax<Heads>& softmax, float (*scores)[kCacheColumns], int64_t count,
                  int64_t head_dim) {
  for (int h = 0; h < Heads; ++h) {
    float top = softmax.top[h];
    for (int64_t c = 0; c < count; ++c) top = scores[h][c] > top ? scores[h][c] : top;
    const float shrink = exponential(softmax.top[h] - top);
    for (int64_t c = 0; c < count; ++c) scores[h][c] = exponential(scores[h][c] - top);
    float total = softmax.total[h] * shrink;
    for (int64_t c = 0; c < count; ++c) total += scores[h][c];
    softmax.top[h] = top;
    softmax.total[h] = total;
    for (int64_t i = 0; i < head_dim; ++i) softmax.out[h][i] *= shrink;
  }
}

// Adds the weighted values of cache columns.
template <int Dtype, int Heads>
inline void gather(Softmax<Heads>& softmax, float (*weights)[kCacheColumns], const void* values,
                   int64_t begin, int64_t step, int64_t count, int64_t head_dim) {
  for (int64_t i = 0; i < head_dim; i += 16) {
    Floats sums[Heads];
    for (int h = 0; h < Heads; ++h) sums[h] = load_floats(softmax.out[h] + i);
    for (int64_t c = 0; c < count; ++c) {
      const Floats v = load_cache<Dtype>(values, begin + c * step + i);
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) sums[h] = multiply_add(broadcast(weights[h][c]), v, sums[h]);
    }
    for (int h = 0; h < Heads; ++h) store(softmax.out[h] + i, sums[h]);
  }
}

// Where heads stand in a row of the fused projection.
struct HeadPlaces {
  int64_t query, key, value;  // of the first query head of a key/value head, and of that

  HeadPlaces(const DecodeModel& m, int64_t kv_head) {
    const int64_t group = m.num_heads / m.num_kv_heads;
    if (m.interleaved_heads) {
      query = kv_head * (group + 2) * m.head_dim;
      key = query + group * m.head_dim;
      value = key + m.head_dim;
    } else {
      query = kv_head * group * m.head_dim;
      key = (m.num_heads + kv_head) * m.head_dim;
      value = key + m.num_kv_heads * m.head_dim;
    }
  }
};

// A row's part of the fused projection: where its queries are, and its key and value.
struct Projected {
  float *queries, *qkv;
  bool rotates;
};

// Attention of `Heads` query heads of a key/value head, from query head `first` of it on. Rotates
// the queries and the new key; the first of the key/value head's calls stores key and value.
template <int Dtype, int Heads>
void attend(const DecodeModel& m, const DecodeStep& s, int64_t layer, int64_t row, int64_t kv_head,
            int64_t first, const Projected& x, float* out) {
  const HeadPlaces at(m, kv_head);
  const int64_t H = m.head_dim, step = m.num_kv_heads * H;
  const int64_t start = row * s.capacity * step + kv_head * H;
  const int64_t* place = s.positions + 2 * row;
  float k_new[kMostHeadDim], v_new[kMostHeadDim];
  std::memcpy(k_new, x.qkv + at.key, H * sizeof(float));
  std::memcpy(v_new, x.qkv + at.value, H * sizeof(float));
  if (x.rotates) rotate(m, place, k_new);
  round_as_cache<Dtype>(k_new, H);
  round_as_cache<Dtype>(v_new, H);
  if (first == 0) {
    store_cache<Dtype>(k_new, H, s.keys[layer], start + s.length * step);
    store_cache<Dtype>(v_new, H, s.values[layer], start + s.length * step);
  }
  Softmax<Heads> softmax;
  float scores[Heads][kCacheColumns];
  const float* q[Heads];
  for (int h = 0; h < Heads; ++h) {
    float* head = x.queries + at.query + (first + h) * H;
    if (x.rotates) rotate(m, place, head);
    for (int64_t i = 0; i < H; ++i) head[i] *= m.score_scale;
    q[h] = head;
    softmax.total[h] = 1;
    std::memcpy(softmax.out[h], v_new, H * sizeof(float));
  }
  score<kFloat32, Heads>(q, k_new, 0, 0, 1, H, scores);
  for (int h = 0; h < Heads; ++h) softmax.top[h] = scores[h][0];
  const auto see = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c += kCacheColumns) {
      const int64_t count = end - c < kCacheColumns ? end - c : kCacheColumns;
      score<Dtype, Heads>(q, s.keys[layer], start + c * step, step, count, H, scores);
      weigh<Heads>(softmax, scores, count, H);
      gather<Dtype, Heads>(softmax, scores, s.values[layer], start + c * step, step, count, H);
    }
  };
  see(0, s.front);
  see(s.first[row], s.length);
  for (int h = 0; h < Heads; ++h) {
    float* head = out + (kv_head * (m.num_heads / m.num_kv_heads) + first + h) * H;
    for (int64_t i = 0; i < H; ++i) head[i] = softmax.out[h][i] / softmax.total[h];
  }
}

template <int Dtype>
void attend_tile(const DecodeModel& m, const DecodeStep& s, int64_t layer, int64_t row,
                 int64_t kv_head, int64_t first, int64_t heads, const Projected& x,
                 float* out) {
  if (heads == 4) return attend<Dtype, 4>(m, s, layer, row, kv_head, first, x, out);
  if (heads == 2) return attend<Dtype, 2>(m, s, layer, row, kv_head, first, x, out);
  attend<Dtype, 1>(m, s, layer, row, kv_head, first, x, out);
}

// How many query heads are worked on at once.
inline int64_t heads_at_once(const DecodeModel& m) {
  const int64_t group = m.num_heads / m.num_kv_heads;
  return group % kTileHeads == 0 ? kTileHeads : group % 2 == 0 ? 2 : 1;
}

}  // namespace
}  // namespace glm::GLM_ISA
