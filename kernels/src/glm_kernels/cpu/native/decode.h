// New columns of some texts through a whole model: norms, quantized products, rotary embedding,
// attention over the cache, gates, residual sums and the head. Every thread runs the same phases
// (team.h), nothing is allocated, and the residual stream is fp32.
// Included once for each instruction set, after weight_only.h.
#pragma once

#include <new>

#include "decode_embed.h"
#include "decode_products.h"

namespace glm::GLM_ISA {
namespace {

// A thread's way through a step.
class Step : private Products {
 public:
  using Products::Products;

  void run() {
    embed();
    for (int64_t layer = 0; layer < m_.num_layers; ++layer) {
      const Layer& l = m_.layers[layer];
      const int64_t inputs = projected_rows(m_, layer, s_.rows);
      if (inputs > s_.rows) final_norm();
      normalize_into(l.input_norm, l.query_key_value, inputs);
      product(l.query_key_value, b_.normed, b_.qkv, inputs);
      attention(layer);
      prepare(l.dense, b_.attended, s_.rows, [&](int64_t row, int64_t begin, int64_t count) {
        merge_part(row, begin, count);
      });
      join(l.dense, b_.attended, l.attention_out_norm);
      normalize_into(l.post_attention_norm, l.up, s_.rows);
      product(l.up, b_.normed, b_.up, s_.rows);
      prepare(l.down, b_.inner, s_.rows, [&](int64_t row, int64_t begin, int64_t count) {
        activate_part(row, begin, count);
      });
      join(l.down, b_.inner, l.mlp_out_norm);
    }
    if (s_.logit_rows == 0) return;
    if (m_.top_query) {
      prepare(m_.head, b_.x, s_.logit_rows, nothing);
    } else {
      normalize_into(m_.final_norm, m_.head, s_.logit_rows);
    }
    product(m_.head, m_.top_query ? b_.x : b_.normed, s_.logits, s_.logit_rows);
  }

 private:
  static void nothing(int64_t, int64_t, int64_t) {}

  // The residual stream = the embedding of the tokens and, where they are learned, the places.
  void embed() {
    each_part(s_.rows, m_.hidden_size, [&](int64_t row, int64_t begin, int64_t count) {
      float* out = b_.x + row * m_.hidden_size + begin;
      look_up(m_.words, s_.tokens[row], begin, count, false, out);
      for (int i = 0; i < 2; ++i) {
        if (m_.places[i].values == nullptr) continue;
        look_up(m_.places[i], s_.positions[2 * row + i], begin, count, true, out);
      }
    });
  }

  // normed = the norm of the residual stream, the input of `matrix`; rows beyond those of the
  // residual stream are what the top-query layer asks with, as it is.
  void normalize_into(const NormWeights& norm, const Matrix& matrix, int64_t rows) {
    int64_t known = -1;  // row whose statistics this thread has
    Statistics about{};
    prepare(matrix, b_.normed, rows, [&](int64_t row, int64_t begin, int64_t count) {
      if (row >= s_.rows) {
        const int64_t position = s_.positions[2 * (row - s_.rows)];
        float* out = b_.normed + row * m_.hidden_size + begin;
        return look_up(m_.queries, position, begin, count, false, out);
      }
      const float* x = b_.x + row * m_.hidden_size;
      if (row != known) about = statistics<kFloat32>(m_.norm, x, m_.hidden_size, m_.eps);
      known = row;
      normalize(norm, about, x, begin, count, b_.normed + row * m_.hidden_size + begin);
    });
  }

  // The residual stream = its norm.
  void final_norm() {
    team_.each(s_.rows, 1, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        float* x = b_.x + row * m_.hidden_size;
        const Statistics about = statistics<kFloat32>(m_.norm, x, m_.hidden_size, m_.eps);
        normalize(m_.final_norm, about, x, 0, m_.hidden_size, x);
      }
    });
  }

  void activate_part(int64_t row, int64_t begin, int64_t count) {
    const int64_t F = m_.ffn_hidden_size;
    const float* up = b_.up + row * F * (m_.gate == kNoGate ? 1 : 2) + begin;
    const float* second = m_.gate == kNoGate ? nullptr : up + F;
    const bool swapped = m_.gate == kGateSecond;
    activate(m_.activation, swapped ? second : up, swapped ? up : second, count,
             b_.inner + row * F + begin);
  }

  void attention(int64_t layer) {
    const bool asks = projected_rows(m_, layer, s_.rows) > s_.rows;
    if (s_.cache_dtype == kFloat32) return attention_as<kFloat32>(layer, asks);
    if (s_.cache_dtype == kBFloat16) return attention_as<kBFloat16>(layer, asks);
    attention_as<kFloat16>(layer, asks);
  }

  // asks: whether the queries have rows of their own in the fused projection, and are not rotated.
  template <int Dtype>
  void attention_as(int64_t layer, bool asks) {
    const int64_t width = (m_.num_heads + 2 * m_.num_kv_heads) * m_.head_dim;
    team_.each(s_.rows * m_.num_kv_heads, kHeadPiece, [&](int64_t first, int64_t last) {
      for (int64_t item = first; item < last; ++item) {
        const int64_t row = item / m_.num_kv_heads, head = item % m_.num_kv_heads;
        store_new<Dtype>(m_, s_, layer, row, head, b_.qkv + row * width, !asks);
      }
    });
    const Pieces longest(*std::max_element(s_.visible, s_.visible + s_.rows));
    const int64_t all_tiles = m_.num_heads / heads_at_once(m_);
    int64_t tiles = kShareHeads / heads_at_once(m_);
    const auto shares = [&] { return (all_tiles + tiles - 1) / tiles; };
    while (tiles > 1 && s_.rows * longest.count * shares() < kSharesOfThread * s_.threads) tiles /= 2;
    team_.each(s_.rows * longest.count * shares(), 1, [&](int64_t first, int64_t last) {
      for (int64_t item = first; item < last; ++item) {
        const int64_t tile = item % shares() * tiles, piece = item / shares() % longest.count;
        const int64_t row = item / shares() / longest.count, visible = s_.visible[row];
        const Pieces pieces(visible);
        if (piece >= pieces.count) continue;
        const int64_t begin = piece * pieces.columns;
        const Share share{layer, row,   tile,
                          std::min(tiles, all_tiles - tile),
                          begin, std::min(begin + pieces.columns, visible)};
        const float* qkv = b_.qkv + (asks ? s_.rows + row : row) * width;
        const Partial whole{b_.attended + row * m_.num_heads * m_.head_dim, nullptr, nullptr};
        const bool is_all = pieces.count == 1;
        attend<Dtype>(m_, s_, share, qkv, !asks, is_all,
                      is_all ? whole : partial_at(m_, b_, row, piece));
      }
    });
  }

  // Part of a row of the attention's result, where its columns were cut into pieces.
  void merge_part(int64_t row, int64_t begin, int64_t count) {
    const Pieces pieces(s_.visible[row]);
    if (pieces.count == 1) return;
    Partial of[kMostPieces];
    for (int64_t p = 0; p < pieces.count; ++p) of[p] = partial_at(m_, b_, row, p);
    float* out = b_.attended + row * m_.num_heads * m_.head_dim + begin;
    merge(m_, of, pieces.count, begin, count, out);
  }

  // Joins the output of a sub-layer, whose last product this is, to the residual stream.
  void join(const Matrix& matrix, const float* x, const NormWeights& out_norm) {
    const int64_t D = m_.hidden_size;
    if (m_.residual != kSandwich) {
      const bool deep = m_.residual == kDeepNorm;
      product(matrix, x, b_.x, s_.rows, deep ? b_.normed : b_.x, deep ? m_.residual_scale : 1.0f);
      return;
    }
    product(matrix, x, b_.out, s_.rows);
    team_.each(s_.rows, 1, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const float* out = b_.out + row * D;
        const Statistics about = statistics<kFloat32>(m_.norm, out, D, m_.eps);
        float part[kChunk];
        for (int64_t begin = 0; begin < D; begin += kChunk) {
          const int64_t count = D - begin < kChunk ? D - begin : kChunk;
          normalize(out_norm, about, out, begin, count, part);
          for (int64_t i = 0; i < count; ++i) b_.x[row * D + begin + i] += part[i];
        }
      }
    });
  }

  static constexpr int64_t kHeadPiece = 4;
  static constexpr int64_t kSharesOfThread = 4;  // of the attention: so many even out

};

}  // namespace

int64_t decode_workspace(const DecodeModel& model, int64_t rows) {
  Buffers buffers;
  return lay_out(model, rows, nullptr, &buffers);
}

void decode_step(const DecodeModel& model, const DecodeStep& step) {
  struct Job {
    const DecodeModel& model;
    const DecodeStep& step;
    Buffers buffers;
  } job{model, step, {}};
  lay_out(model, step.rows, static_cast<char*>(step.workspace), &job.buffers);
  for (int64_t i = 0; i < phase_count(model); ++i) new (job.buffers.phases + i) Phase();
  const auto run = [](void* data) {
    auto& job = *static_cast<Job*>(data);
    Step(job.model, job.step, job.buffers).run();
  };
  if (step.threads > 1 && gomp_parallel != nullptr) {
    gomp_parallel(run, &job, static_cast<unsigned>(step.threads), 0);
  } else {
    run(&job);
  }
}

}  // namespace glm::GLM_ISA
