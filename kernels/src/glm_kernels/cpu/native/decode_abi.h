// A decode step as Python describes it; decode.py has the same structs.
#pragma once

#include <cstdint>

#include "abi.h"

namespace glm {

enum NormKind : int32_t { kRmsNorm = 0, kLayerNorm = 1 };
enum ActivationKind : int32_t { kGeluTanh = 0, kGeluErf = 1, kGeluQuick = 2, kSilu = 3 };
enum GateKind : int32_t { kNoGate = 0, kGateFirst = 1, kGateSecond = 2 };  // the activated half
enum RopeKind : int32_t { kNoRope = 0, kRopeHalves = 1, kRopeInterleaved = 2, kRope2d = 3 };
enum ResidualKind : int32_t { kPreNorm = 0, kDeepNorm = 1, kSandwich = 2 };

// A linear layer or a table: quantized, as in LinearArguments, or plain numbers [out_features,
// in_features].
struct Matrix {
  const void* values;      // packed levels, or the numbers
  const uint16_t* scales;  // null for plain numbers
  const int8_t* zeros;
  const float* bias;  // or null
  int64_t in_features;
  int64_t out_features;
  int32_t bits;   // 4 or 8; 0 for plain numbers
  int32_t group;
  int32_t dtype;  // of plain numbers
  int32_t is_stored;  // a table alone: row by row as files hold it, not packed
};

struct NormWeights {
  const float* weight;
  const float* bias;  // or null
};

struct Layer {
  NormWeights input_norm, attention_out_norm, post_attention_norm, mlp_out_norm;
  Matrix query_key_value, dense, up, down;
};

struct DecodeModel {
  const Layer* layers;
  NormWeights final_norm;
  Matrix head;
  Matrix words;             // the table of tokens
  Matrix places[2];         // tables of positions and block positions, added to it; or no values
  Matrix queries;           // what the top-query layer asks with, by position
  const float* cosines;  // [positions, pairs]
  const float* sines;
  int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, ffn_hidden_size;
  int64_t pairs;  // rotated together by one position
  float eps, score_scale, residual_scale;
  int32_t norm, activation, gate, rope, residual;
  int32_t interleaved_heads;  // the queries, key and value of a key/value head side by side
  int32_t top_query;  // the last layer has its own queries' input, and stands above the final norm
};

constexpr int64_t kPageColumns = 64;  // of a cache, worked on at once

// New columns of some texts, one in each row. A cache is columns [kv heads, head_dim]; where those of
// a row's text are in it, its pages tell. Rows may belong to one text: all columns are stored before
// any is looked at.
struct DecodeStep {
  const int64_t* tokens;     // [rows]
  float* logits;             // of the first rows, [logit_rows, out_features of the head]
  void* const* keys;         // for each layer its cache
  void* const* values;
  const int64_t* positions;  // [rows, 2]: position and block position
  const int64_t* const* pages;  // for each row: the columns where its pages begin in a cache
  const int64_t* lengths;    // [rows]: columns before the new one, which has room in the pages
  const int64_t* visible;    // [rows]: so many columns are seen, the new one with them
  const int64_t* first;      // [rows]: the first column that a row sees
  void* workspace;           // of decode_workspace(...) bytes, beginning at a cache line
  int64_t rows, logit_rows;
  int64_t front;  // of its first columns each row sees so many, whatever `first` is
  int32_t cache_dtype;
  int32_t threads;
};

}  // namespace glm
