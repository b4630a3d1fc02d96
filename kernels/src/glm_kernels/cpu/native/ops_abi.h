// Fused operations as Python calls them; cpu/call.py packs the same structs.
#pragma once

#include <cstdint>

#include "decode_abi.h"

namespace glm {

// out = the norm of x, or of stream = residual + x.
struct NormArguments {
  const void* x;         // [rows, columns], rows x_stride elements apart
  const void* residual;  // as x, or null: x is normed itself
  const void* weight;    // [columns]
  const void* bias;      // of the dtype of weight, or null
  void* out;             // [rows, columns], contiguous
  void* stream;          // as out; unused without residual
  float* means;          // [rows], or null: not wanted
  float* inverses;       // [rows], or null
  int64_t x_stride, residual_stride;
  int64_t rows, columns;
  float eps;
  int32_t kind;  // NormKind
  int32_t x_dtype, residual_dtype, stream_dtype, weight_dtype, out_dtype;
  int32_t threads;
};

// Gradients of a norm. The rows are cut into `parts`, which depends on nothing but the shape, so
// that the sums of the weight's and the bias's gradients do not depend on the threads.
struct NormBackwardArguments {
  const void* x;            // what was normed: x, or the stream; [rows, columns]
  const void* weight;       // [columns]
  const void* grad;         // of out, [rows, columns]
  const void* grad_stream;  // of the stream, dtype of x, or null
  const float* means;       // [rows]; null: RMS norm
  const float* inverses;    // [rows]
  void* grad_x;             // [rows, columns], contiguous, dtype of x; grad_stream is in it
  float* weight_sums;       // [parts, columns]
  float* bias_sums;         // [parts, columns], or null
  int64_t x_stride, grad_stride, grad_stream_stride;
  int64_t rows, columns, parts;
  int32_t x_dtype, weight_dtype, grad_dtype;
  int32_t threads;
};

// Rotates the first 2 * pairs dims of every head by (cosines, sines), the next 2 * pairs by
// (block_cosines, block_sines) where these are given, and copies the rest.
struct RopeArguments {
  const void* x;         // [batch, length, heads, head_dim], the last dimension dense
  void* out;             // of the same shape, contiguous
  const float* cosines;  // [batch, length, pairs], the last dimension dense
  const float* sines;
  const float* block_cosines;  // as cosines, or null
  const float* block_sines;
  int64_t x_row, x_column, x_head;      // strides
  int64_t table_row, table_column;      // strides of cosines and sines
  int64_t block_row, block_column;      // strides of the block's
  int64_t batch, length, heads, head_dim, pairs;
  float sign;  // 1, or -1: back, which is the gradient
  int32_t interleaved;
  int32_t dtype;
  int32_t threads;
};

// out = activation(gate) * value, or activation(x) without a gate; the backward when grad is given.
struct GateArguments {
  const void* x;     // [rows, columns], or [rows, 2 columns] with a gate; rows x_stride apart
  const void* grad;  // of out, [rows, columns], contiguous; null: forward
  void* out;         // [rows, columns], or the gradient of x in the backward; contiguous
  int64_t x_stride;
  int64_t rows, columns;
  int32_t activation;  // ActivationKind
  int32_t gate;        // GateKind
  int32_t dtype;
  int32_t threads;
};

// softmax(scale q k^T) v over keys [start, stop) and [0, sink).
struct AttentionArguments {
  const void* q;         // [batch, queries, heads, head_dim]; last dimensions are dense
  const void* keys;      // [batch, columns, kv heads, head_dim]
  const void* values;    // as keys
  void* out;             // [batch, queries, heads, head_dim], contiguous
  const int32_t* start;  // [batch or 1, queries]
  const int32_t* stop;
  int64_t q_row, q_column, q_head;  // strides
  int64_t k_row, k_column, k_head;
  int64_t v_row, v_column, v_head;
  int64_t bound_row;  // stride of start and stop: 0 where all rows of the batch are alike
  int64_t batch, queries, columns, heads, kv_heads, head_dim;
  float scale;
  int32_t sink;
  int32_t dtype;
  int32_t threads;
};

}  // namespace glm
