// Activations and gated units, forward and backward. Included for each instruction set.
#pragma once

#include "decode_maths.h"
#include "ops_abi.h"
#include "parallel.h"

namespace glm::GLM_ISA {
namespace {

constexpr int64_t kGateColumns = 512;  // of a row, worked on at once

// out = grad * value * activation'(x), without value when that is null.
template <int Kind>
inline void slopes_as(const float* x, const float* grad, const float* value, int64_t count,
                      float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats v = multiply(slope<Kind>(load_row<kFloat32>(x, i, count)),
                        load_row<kFloat32>(grad, i, count));
    if (value) v = multiply(v, load_row<kFloat32>(value, i, count));
    store_row<kFloat32>(out, i, count, v);
  }
}

inline void slopes(int32_t kind, const float* x, const float* grad, const float* value,
                   int64_t count, float* out) {
  if (kind == kSilu) return slopes_as<kSilu>(x, grad, value, count, out);
  if (kind == kGeluQuick) return slopes_as<kGeluQuick>(x, grad, value, count, out);
  if (kind == kGeluErf) return slopes_as<kGeluErf>(x, grad, value, count, out);
  slopes_as<kGeluTanh>(x, grad, value, count, out);
}

// Some columns of a row: where they are read and written.
template <int Dtype>
struct GateColumns {
  const float *gate, *value, *grad;  // value null without a gate, grad null in the forward
  void *gate_out, *value_out;        // forward: gate_out alone
  float buffers[3][kGateColumns];

  GateColumns(const GateArguments& a, int64_t row, int64_t begin, int64_t count) {
    const int64_t F = a.columns, width = a.gate == kNoGate ? F : 2 * F;
    const int64_t active = a.gate == kGateSecond ? F : 0, other = F - active;
    const void* x = offset(a.x, Dtype, row * a.x_stride + begin);
    gate = widened<Dtype>(offset(x, Dtype, active), count, buffers[0]);
    value = a.gate == kNoGate ? nullptr
                              : widened<Dtype>(offset(x, Dtype, other), count, buffers[1]);
    if (a.grad) {
      grad = widened<Dtype>(offset(a.grad, Dtype, row * F + begin), count, buffers[2]);
      gate_out = offset(a.out, Dtype, row * width + active + begin);
      value_out = offset(a.out, Dtype, row * width + other + begin);
    } else {
      gate_out = offset(a.out, Dtype, row * F + begin);
    }
  }
};

// The activated half is rounded before it is multiplied, as the formula says.
template <int Dtype>
void gate_forward(const GateArguments& a, const GateColumns<Dtype>& c, int64_t count) {
  if (Dtype == kFloat32) {
    return activate(a.activation, c.gate, c.value, count, static_cast<float*>(c.gate_out));
  }
  float results[kGateColumns];
  activate(a.activation, c.gate, nullptr, count, results);
  for (int64_t i = 0; c.value && i < count; i += kLanes) {
    const Floats v = rounded<Dtype>(load_row<kFloat32>(results, i, count));
    const Floats value = load_row<kFloat32>(c.value, i, count);
    store_row<kFloat32>(results, i, count, multiply(v, value));
  }
  narrow<Dtype>(results, count, c.gate_out);
}

template <int Dtype>
void gate_backward(const GateArguments& a, const GateColumns<Dtype>& c, int64_t count) {
  float results[kGateColumns];
  slopes(a.activation, c.gate, c.grad, c.value, count, results);
  narrow<Dtype>(results, count, c.gate_out);
  if (!c.value) return;
  activate(a.activation, c.gate, c.grad, count, results);
  narrow<Dtype>(results, count, c.value_out);
}

}  // namespace

void gate(const GateArguments& a) {
  const int64_t parts = (a.columns + kGateColumns - 1) / kGateColumns;
  const int64_t piece = rows_worth_a_thread(kGateColumns);
  parallel_for(a.rows * parts, piece, a.threads, [&](int64_t first, int64_t last) {
    with_dtype(a.dtype, [&](auto dtype) {
      constexpr int Dtype = decltype(dtype)::value;
      for (int64_t part = first; part < last; ++part) {
        const int64_t begin = part % parts * kGateColumns, rest = a.columns - begin;
        const int64_t count = rest < kGateColumns ? rest : kGateColumns;
        const GateColumns<Dtype> columns(a, part / parts, begin, count);
        a.grad ? gate_backward(a, columns, count) : gate_forward(a, columns, count);
      }
    });
  });
}

}  // namespace glm::GLM_ISA
