// The fused operations that Python calls, on the path that it chose.

#include "ops_abi.h"

#define GLM_OPERATIONS(isa)                            \
  namespace isa {                                      \
  void norm(const NormArguments& a);                   \
  void norm_backward(const NormBackwardArguments& a);  \
  void rope(const RopeArguments& a);                   \
  void gate(const GateArguments& a);                   \
  void attention(const AttentionArguments& a);         \
  }

namespace glm {
GLM_OPERATIONS(portable)
#ifdef GLM_X86
GLM_OPERATIONS(avx2)
GLM_OPERATIONS(avx512)
#endif
}  // namespace glm

#ifdef GLM_X86
#define GLM_CALL(operation)                                        \
  if (isa >= glm::kAvx512) return glm::avx512::operation(*a);      \
  if (isa == glm::kAvx2) return glm::avx2::operation(*a);          \
  glm::portable::operation(*a)
#else
#define GLM_CALL(operation) static_cast<void>(isa), glm::portable::operation(*a)
#endif

#define GLM_EXPORT extern "C" __attribute__((visibility("default")))

GLM_EXPORT void glm_norm(const glm::NormArguments* a, int32_t isa) { GLM_CALL(norm); }
GLM_EXPORT void glm_norm_backward(const glm::NormBackwardArguments* a, int32_t isa) {
  GLM_CALL(norm_backward);
}
GLM_EXPORT void glm_rope(const glm::RopeArguments* a, int32_t isa) { GLM_CALL(rope); }
GLM_EXPORT void glm_gate(const glm::GateArguments* a, int32_t isa) { GLM_CALL(gate); }
GLM_EXPORT void glm_attention(const glm::AttentionArguments* a, int32_t isa) { GLM_CALL(attention); }
