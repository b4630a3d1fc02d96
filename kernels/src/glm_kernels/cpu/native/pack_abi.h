// What pack.h is asked for.
#pragma once

#include <cstdint>

namespace glm {

struct PackArguments {
  const uint8_t* levels;  // [rows, row_bytes]
  uint8_t* out;           // [blocks of 16 rows, vectors, 64]
  int64_t rows, row_bytes, vectors;
  int32_t bits, threads;
};

}  // namespace glm
