// The functions that Python calls, and the choice of the path that this processor can run.

#include <cstdint>

#include "abi.h"
#include "decode_abi.h"
#include "pack_abi.h"
#include "parallel.h"

namespace glm {

GompParallel gomp_parallel = nullptr;

namespace portable {
int linear(const LinearArguments& arguments);
void dequantize(const Dequantize& arguments);
int64_t decode_workspace(const DecodeModel& model, int64_t rows);
void decode_step(const DecodeModel& model, const DecodeStep& step);
void pack_levels(const PackArguments& arguments);
}
#ifdef GLM_X86
namespace avx2 {
int linear(const LinearArguments& arguments);
void dequantize(const Dequantize& arguments);
int64_t decode_workspace(const DecodeModel& model, int64_t rows);
void decode_step(const DecodeModel& model, const DecodeStep& step);
void pack_levels(const PackArguments& arguments);
}
namespace avx512 {
int linear(const LinearArguments& arguments);
void dequantize(const Dequantize& arguments);
int64_t decode_workspace(const DecodeModel& model, int64_t rows);
void decode_step(const DecodeModel& model, const DecodeStep& step);
void pack_levels(const PackArguments& arguments);
}
namespace amx {
int linear(const LinearArguments& arguments);
int64_t decode_workspace(const DecodeModel& model, int64_t rows);
void decode_step(const DecodeModel& model, const DecodeStep& step);
bool permitted();
}
#endif

// The best instruction set of this processor (the operating system's support included).
Isa best_isa() {
#ifdef GLM_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    return amx::permitted() ? kAmx : kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPortable;
}

}  // namespace glm

#define GLM_EXPORT __attribute__((visibility("default")))

extern "C" {

// Changes with every change of the sources; a library built from others is not loaded.
GLM_EXPORT const char* glm_source_hash() { return GLM_SOURCE_HASH; }

GLM_EXPORT int32_t glm_best_isa() { return glm::best_isa(); }

GLM_EXPORT void glm_use_threads_of(void* gomp_parallel) {
  glm::gomp_parallel = reinterpret_cast<glm::GompParallel>(gomp_parallel);
}

// Returns 0, or 1 when there is no memory for the quantized activations.
GLM_EXPORT int32_t glm_linear_weight_only(const void* x, const uint8_t* levels, const uint16_t* scales,
                               const int8_t* zeros, const void* bias, void* out, int64_t x_stride,
                               int64_t rows, int64_t in_features, int64_t out_features,
                               int32_t x_dtype, int32_t bias_dtype, int32_t bits, int32_t group,
                               int32_t planes, int32_t threads, int32_t isa) {
  const glm::LinearArguments arguments{x,        levels,     scales,      zeros,        bias,
                                       out,      x_stride,   rows,        in_features,  out_features,
                                       x_dtype,  bias_dtype, bits,        group,        planes,
                                       threads};
#ifdef GLM_X86
  if (isa == glm::kAmx) return glm::amx::linear(arguments);
  if (isa == glm::kAvx512) return glm::avx512::linear(arguments);
  if (isa == glm::kAvx2) return glm::avx2::linear(arguments);
#endif
  return glm::portable::linear(arguments);
}

GLM_EXPORT void glm_pack_levels(const uint8_t* levels, uint8_t* out, int64_t rows,
                                int64_t row_bytes, int64_t vectors, int32_t bits, int32_t threads,
                                int32_t isa) {
  const glm::PackArguments arguments{levels, out, rows, row_bytes, vectors, bits, threads};
#ifdef GLM_X86
  if (isa >= glm::kAvx512) return glm::avx512::pack_levels(arguments);
  if (isa == glm::kAvx2) return glm::avx2::pack_levels(arguments);
#endif
  glm::portable::pack_levels(arguments);
}

GLM_EXPORT void glm_dequantize(const uint8_t* levels, const uint16_t* scales, const int8_t* zeros,
                               void* out, int64_t in_features, int64_t out_features,
                               int64_t begin, int64_t columns, int32_t dtype, int32_t bits,
                               int32_t group, int32_t threads, int32_t isa) {
  const glm::Dequantize arguments{levels, scales,  zeros, out,  in_features, out_features,
                                  begin,  columns, dtype, bits, group,       threads};
#ifdef GLM_X86
  if (isa >= glm::kAvx512) return glm::avx512::dequantize(arguments);
  if (isa == glm::kAvx2) return glm::avx2::dequantize(arguments);
#endif
  glm::portable::dequantize(arguments);
}

// Bytes of the workspace that a decode step of so many rows needs.
GLM_EXPORT int64_t glm_decode_workspace(const glm::DecodeModel* model, int64_t rows, int32_t isa) {
#ifdef GLM_X86
  if (isa == glm::kAmx) return glm::amx::decode_workspace(*model, rows);
  if (isa == glm::kAvx512) return glm::avx512::decode_workspace(*model, rows);
  if (isa == glm::kAvx2) return glm::avx2::decode_workspace(*model, rows);
#endif
  return glm::portable::decode_workspace(*model, rows);
}

GLM_EXPORT void glm_decode_step(const glm::DecodeModel* model, const glm::DecodeStep* step,
                                int32_t isa) {
#ifdef GLM_X86
  if (isa == glm::kAmx) return glm::amx::decode_step(*model, *step);
  if (isa == glm::kAvx512) return glm::avx512::decode_step(*model, *step);
  if (isa == glm::kAvx2) return glm::avx2::decode_step(*model, *step);
#endif
  glm::portable::decode_step(*model, *step);
}

}  // extern "C"
