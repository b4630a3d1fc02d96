// The C interface of the compiled library, as ctypes calls it (library.py has the same in Python).
#pragma once

#include <cstdint>

namespace glm {

enum Dtype : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// Instruction sets with a path of their own, the best last.
enum Isa : int32_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAmx = 3 };

// y[m, n] = sum over k of x[m, k] * weight[n, k] + bias[n]; see weight_only.h for the layout.
struct LinearArguments {
  const void* x;           // [rows, in_features], rows x_stride elements apart
  const uint8_t* levels;   // packed
  const uint16_t* scales;  // fp16 [blocks, groups, 16], or [blocks, 16] when group is 0
  const int8_t* zeros;     // of the shape of scales, or null: symmetric
  const void* bias;        // [out_features], or null
  void* out;               // [rows, out_features], contiguous, dtype of x
  int64_t x_stride;
  int64_t rows;
  int64_t in_features;
  int64_t out_features;
  int32_t x_dtype;
  int32_t bias_dtype;
  int32_t bits;    // 4 or 8
  int32_t group;   // columns that share a scale, a multiple of 32; 0: the whole row
  int32_t planes;  // int8 planes of the activations: 2 (15 bits) or 1 (8 bits)
  int32_t threads;
};

// out = columns [begin, begin + columns) of a weight, as numbers.
struct Dequantize {
  const uint8_t* levels;
  const uint16_t* scales;
  const int8_t* zeros;
  void* out;  // [out_features, columns]
  int64_t in_features;
  int64_t out_features;
  int64_t begin;  // a multiple of 128
  int64_t columns;
  int32_t dtype;
  int32_t bits;
  int32_t group;
  int32_t threads;
};

}  // namespace glm
