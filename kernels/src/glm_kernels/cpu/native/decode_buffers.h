// Where a decode step keeps its intermediate values: all in one workspace. Included for each
// instruction set, after weight_only.h.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "decode_pieces.h"
#include "team.h"

namespace glm::GLM_ISA {
namespace {

constexpr int kPlanes = 2;
constexpr int64_t kChunk = 128;  // columns of a row prepared at once: whole groups of any size

// Where a step keeps its intermediate values; all [rows, ...].
struct Buffers {
  Phase* phases;
  float *x;  // the residual stream
  float *normed, *qkv, *attended, *up, *inner, *out;
  float *pieces, *tops, *totals;  // of the attention, [rows, pieces, ...]
  char* quantized;  // of the input of the next product
};

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

inline LinearArguments as_arguments(const Matrix& m, int64_t rows) {
  LinearArguments a{};
  a.levels = static_cast<const uint8_t*>(m.values);
  a.scales = m.scales;
  a.zeros = m.zeros;
  a.rows = rows;
  a.in_features = a.x_stride = m.in_features;
  a.out_features = m.out_features;
  a.bits = m.bits;
  a.group = m.group;
  a.planes = kPlanes;
  return a;
}

#ifdef GLM_TILES
constexpr int64_t kMostSpanRows = 512;

// Whether a product goes through spans.h.
inline bool multiplies_spans(const LinearArguments& a) {
  return a.bits != 0 && a.rows > few_rows(a.group) && a.rows <= kMostSpanRows;
}
#endif

inline int64_t quantized_bytes(const Matrix& m, int64_t rows) {
  if (m.bits == 0) return 0;
  const LinearArguments a = as_arguments(m, rows);
#ifdef GLM_TILES
  if (multiplies_spans(a)) return aligned(span_bytes(a, rows));
#endif
  const Sizes size(a);
  return aligned(rows * size.units * kUnit * kPlanes) + 2 * aligned(rows * size.groups * 4);
}

inline Activations quantized_of(const LinearArguments& a, const Sizes& size, char* memory) {
  auto* scales = memory + aligned(a.rows * size.units * kUnit * kPlanes);
  auto* sums = scales + aligned(a.rows * size.groups * 4);
  return {reinterpret_cast<int8_t*>(memory), reinterpret_cast<float*>(scales),
          reinterpret_cast<int32_t*>(sums)};
}

// Rows of the input of a layer's fused projection: in the top-query layer the queries have their own.
inline int64_t projected_rows(const DecodeModel& m, int64_t layer, int64_t rows) {
  return m.top_query && layer == m.num_layers - 1 ? 2 * rows : rows;
}

inline int64_t phase_count(const DecodeModel& m) { return 12 * m.num_layers + 4; }

// Lays the buffers out from `memory` on; returns the bytes that they take.
inline int64_t lay_out(const DecodeModel& m, int64_t rows, char* memory, Buffers* buffers) {
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    char* at = memory + used;
    used += aligned(bytes);
    return at;
  };
  const auto floats = [&](int64_t columns) {
    return reinterpret_cast<float*>(take(rows * columns * 4));
  };
  buffers->phases = reinterpret_cast<Phase*>(take(phase_count(m) * int64_t(sizeof(Phase))));
  buffers->x = floats(m.hidden_size);
  const int64_t inputs = projected_rows(m, m.num_layers - 1, 1);
  buffers->normed = floats(inputs * m.hidden_size);
  buffers->qkv = floats(inputs * (m.num_heads + 2 * m.num_kv_heads) * m.head_dim);
  buffers->attended = floats(m.num_heads * m.head_dim);
  buffers->pieces = floats(kMostPieces * m.num_heads * m.head_dim);
  buffers->tops = floats(kMostPieces * m.num_heads);
  buffers->totals = floats(kMostPieces * m.num_heads);
  buffers->up = floats(m.ffn_hidden_size * (m.gate == kNoGate ? 1 : 2));
  buffers->inner = floats(m.ffn_hidden_size);
  buffers->out = floats(m.hidden_size);
  int64_t most = quantized_bytes(m.head, rows);
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    const Layer& l = m.layers[layer];
    most = std::max(most, quantized_bytes(l.query_key_value, projected_rows(m, layer, rows)));
    for (const Matrix* matrix : {&l.dense, &l.up, &l.down}) {
      most = std::max(most, quantized_bytes(*matrix, rows));
    }
  }
  buffers->quantized = take(most);
  return used;
}

// Where the attention of a row leaves its pieces.
inline Partial partial_at(const DecodeModel& m, const Buffers& b, int64_t row, int64_t piece) {
  const int64_t at = (row * kMostPieces + piece) * m.num_heads;
  return {b.pieces + at * m.head_dim, b.tops + at, b.totals + at};
}

}  // namespace
}  // namespace glm::GLM_ISA
