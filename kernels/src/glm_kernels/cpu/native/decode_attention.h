// Attention over some columns of a cache: what all queries are made of. Included for each
// instruction set.
#pragma once

#include <cstring>

#include "decode_maths.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kMostHeadDim = 256;
constexpr int kTileHeads = 4;     // query heads of a key/value head that share its loads, at most
constexpr float kLowest = -3e38f;  // a score that nothing reaches

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

// How many sums beside those of `Heads` heads fit into registers, at most four.
template <int Heads>
constexpr int kBeside = kSums / Heads > 4 ? 4 : kSums / Heads < 1 ? 1 : kSums / Heads;

// Fetches numbers i.. of a cache into the nearest one.
template <int Dtype>
inline void fetch(const void* p, int64_t i) {
  prefetch(static_cast<const uint8_t*>(p) + i * (Dtype == kFloat32 ? 4 : 2));
}

// Scores of cache columns [begin, begin + count) with some queries; those up to the next multiple
// of four may be written too. Fetches what lies `ahead` numbers further, if anything.
template <int Dtype, int Heads>
inline void score(const float* const* q, const void* keys, int64_t begin, int64_t step,
                  int64_t count, int64_t head_dim, float (*scores)[kPageColumns],
                  int64_t ahead = 0) {
  constexpr int kColumns = kBeside<Heads>;
  static_assert(Heads * kColumns % 4 == 0);
  for (int64_t c = 0; c < count; c += kColumns) {
    int64_t at[kColumns];
    for (int j = 0; j < kColumns; ++j) at[j] = begin + (c + j < count ? c + j : c) * step;
    Floats sums[Heads * kColumns];
#pragma GCC unroll 16
    for (Floats& s : sums) s = zero();
    for (int64_t i = 0; i < head_dim; i += 16) {
      Floats k[kColumns];
#pragma GCC unroll 4
      for (int j = 0; j < kColumns; ++j) {
        k[j] = load_as<Dtype>(keys, at[j] + i);
        if (ahead) fetch<Dtype>(keys, at[j] + i + ahead);
      }
#pragma GCC unroll 4
      for (int h = 0; h < Heads; ++h) {
        const Floats query = load_floats(q[h] + i);
#pragma GCC unroll 4
        for (int j = 0; j < kColumns; ++j) {
          sums[h * kColumns + j] = multiply_add(query, k[j], sums[h * kColumns + j]);
        }
      }
    }
    float totals[Heads * kColumns];
#pragma GCC unroll 4
    for (int i = 0; i < Heads * kColumns; i += 4) store_sums(sums + i, totals + i);
#pragma GCC unroll 16
    for (int i = 0; i < Heads * kColumns; ++i) scores[i / kColumns][c + i % kColumns] = totals[i];
  }
}

// Turns scores into weights, relative to the top so far, and rescales what came before. Weights up
// to the next multiple of 16 become those of scores that nothing reaches.
template <int Heads>
inline void weigh(Softmax<Heads>& softmax, float (*scores)[kPageColumns], int64_t count,
                  int64_t head_dim) {
  const int64_t whole = (count + kLanes - 1) / kLanes * kLanes;
  for (int h = 0; h < Heads; ++h) {
    float* at = scores[h];
    for (int64_t c = count; c < whole; ++c) at[c] = kLowest;
    float lanes[kLanes], top = softmax.top[h], total = 0;
    for (float& lane : lanes) lane = top;
    for (int64_t c = 0; c < whole; c += kLanes) {
      for (int j = 0; j < kLanes; ++j) lanes[j] = at[c + j] > lanes[j] ? at[c + j] : lanes[j];
    }
    for (float lane : lanes) top = lane > top ? lane : top;
    for (int64_t c = 0; c < whole; c += kLanes) {
      store(at + c, exponential(add(load_floats(at + c), broadcast(-top))));
    }
    for (float& lane : lanes) lane = 0;
    for (int64_t c = 0; c < whole; c += kLanes) {
      for (int j = 0; j < kLanes; ++j) lanes[j] += at[c + j];
    }
    for (float lane : lanes) total += lane;
    if (top == softmax.top[h]) {
      softmax.total[h] += total;
      continue;
    }
    const float shrink = exponential(softmax.top[h] - top);
    softmax.total[h] = softmax.total[h] * shrink + total;
    softmax.top[h] = top;
    for (int64_t i = 0; i < head_dim; ++i) softmax.out[h][i] *= shrink;
  }
}

// Adds the weighted values of cache columns, `Vectors` * 16 numbers of each from i on.
template <int Dtype, int Heads, int Vectors>
inline void gather_part(Softmax<Heads>& softmax, float (*weights)[kPageColumns],
                        const void* values, int64_t begin, int64_t step, int64_t count, int64_t i,
                        int64_t ahead) {
  Floats sums[Heads][Vectors];
#pragma GCC unroll 16
  for (int j = 0; j < Heads * Vectors; ++j) {
    sums[j / Vectors][j % Vectors] = load_floats(softmax.out[j / Vectors] + i + j % Vectors * 16);
  }
  for (int64_t c = 0; c < count; ++c) {
    Floats v[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      const int64_t at = begin + c * step + i + j * 16;
      v[j] = load_as<Dtype>(values, at);
      if (ahead) fetch<Dtype>(values, at + ahead);
    }
#pragma GCC unroll 4
    for (int h = 0; h < Heads; ++h) {
      const Floats weight = broadcast(weights[h][c]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sums[h][j] = multiply_add(weight, v[j], sums[h][j]);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < Heads * Vectors; ++j) {
    store(softmax.out[j / Vectors] + i + j % Vectors * 16, sums[j / Vectors][j % Vectors]);
  }
}

// Adds the weighted values of cache columns. Fetches ahead as `score` does.
template <int Dtype, int Heads>
inline void gather(Softmax<Heads>& softmax, float (*weights)[kPageColumns], const void* values,
                   int64_t begin, int64_t step, int64_t count, int64_t head_dim,
                   int64_t ahead = 0) {
  constexpr int kVectors = kBeside<Heads>;
  int64_t i = 0;
  for (; i + kVectors * 16 <= head_dim; i += kVectors * 16) {
    gather_part<Dtype, Heads, kVectors>(softmax, weights, values, begin, step, count, i, ahead);
  }
  for (; i < head_dim; i += 16) {
    gather_part<Dtype, Heads, 1>(softmax, weights, values, begin, step, count, i, ahead);
  }
}

}  // namespace
}  // namespace glm::GLM_ISA
