// Rows of any dtype, sixteen numbers at a time. Included for each instruction set.
#pragma once

#include <cstring>
#include <type_traits>

#include "abi.h"
#include "half.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kShare = 1 << 15;  // numbers that are worth the start of a thread

template <int Dtype>
constexpr int64_t kSize = Dtype == kFloat32 ? 4 : 2;

inline int64_t size_of(int32_t dtype) { return dtype == kFloat32 ? 4 : 2; }

inline const void* offset(const void* p, int32_t dtype, int64_t count) {
  return static_cast<const char*>(p) + count * size_of(dtype);
}
inline void* offset(void* p, int32_t dtype, int64_t count) {
  return static_cast<char*>(p) + count * size_of(dtype);
}

// Calls body with the dtype as a constant.
template <typename Body>
inline void with_dtype(int32_t dtype, const Body& body) {
  if (dtype == kFloat32) return body(std::integral_constant<int, kFloat32>());
  if (dtype == kBFloat16) return body(std::integral_constant<int, kBFloat16>());
  body(std::integral_constant<int, kFloat16>());
}

template <int Dtype>
inline Floats load_as(const void* p, int64_t i) {
  if (Dtype == kFloat32) return load_floats(static_cast<const float*>(p) + i);
  const auto* half = static_cast<const uint16_t*>(p) + i;
  return Dtype == kBFloat16 ? load_bf16(half) : load_half(half);
}

// Numbers [i, i + 16) of a row of `count`; zeros behind its end.
template <int Dtype>
inline Floats load_row(const void* row, int64_t i, int64_t count) {
  if (i + kLanes <= count) return load_as<Dtype>(row, i);
  alignas(64) char rest[kLanes * 4] = {};
  std::memcpy(rest, static_cast<const char*>(row) + i * kSize<Dtype>, (count - i) * kSize<Dtype>);
  return load_as<Dtype>(rest, 0);
}

template <int Dtype>
inline void store_lanes(void* p, Floats v) {
  if (Dtype == kFloat32) return store(static_cast<float*>(p), v);
  auto* half = static_cast<uint16_t*>(p);
  Dtype == kBFloat16 ? store_bf16(half, v) : store_half(half, v);
}

template <int Dtype>
inline void store_row(void* row, int64_t i, int64_t count, Floats v) {
  char* at = static_cast<char*>(row) + i * kSize<Dtype>;
  if (i + kLanes <= count) return store_lanes<Dtype>(at, v);
  alignas(64) char rest[kLanes * 4];
  store_lanes<Dtype>(rest, v);
  std::memcpy(at, rest, (count - i) * kSize<Dtype>);
}

// v as it is after it was stored.
template <int Dtype>
inline Floats rounded(Floats v) {
  if (Dtype == kFloat32) return v;
  alignas(64) uint16_t stored[kLanes];
  store_lanes<Dtype>(stored, v);
  return load_as<Dtype>(stored, 0);
}

// A row as fp32: itself, or widened into `buffer`.
template <int Dtype>
inline const float* widened(const void* row, int64_t count, float* buffer) {
  if (Dtype == kFloat32) return static_cast<const float*>(row);
  for (int64_t i = 0; i < count; i += kLanes) {
    store_row<kFloat32>(buffer, i, count, load_row<Dtype>(row, i, count));
  }
  return buffer;
}

template <int Dtype>
inline void narrow(const float* x, int64_t count, void* row) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_row<Dtype>(row, i, count, load_row<kFloat32>(x, i, count));
  }
}

// How many rows of so many numbers are worth the start of a thread.
inline int64_t rows_worth_a_thread(int64_t numbers) { return kShare / (numbers + 1) + 1; }

}  // namespace
}  // namespace glm::GLM_ISA
