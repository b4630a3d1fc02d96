// Gradients of norms. Included for each instruction set.
//
// With n = (x - mean) * inverse and h = grad * weight, both over a row:
//   grad of x      = inverse * (h - mean(h) - n * mean(h * n)), mean(h) in layer norm alone
//   grad of weight = the sum over the rows of grad * n, of bias: of grad
#pragma once

#include "norms.h"

namespace glm::GLM_ISA {
namespace {

template <int Dtype, int Weight, int Grad>
class NormGradient {
 public:
  NormGradient(const NormBackwardArguments& a, int64_t row, float* weight_sums, float* bias_sums)
      : a_(a),
        row_(row),
        x_(offset(a.x, Dtype, row * a.x_stride)),
        grad_(offset(a.grad, Grad, row * a.grad_stride)),
        inverse_(broadcast(a.inverses[row])),
        minus_mean_(broadcast(a.means ? -a.means[row] : 0)),
        weight_sums_(weight_sums),
        bias_sums_(bias_sums) {}

  void run() const {
    const float count = static_cast<float>(a_.columns);
    Floats sum_h = zero(), sum_hn = zero();
    for (int64_t i = 0; i < a_.columns; i += kLanes) {
      const Floats n = normed(i), grad = load_row<Grad>(grad_, i, a_.columns);
      const Floats h = multiply(grad, load_row<Weight>(a_.weight, i, a_.columns));
      sum_h = add(h, sum_h);
      sum_hn = multiply_add(h, n, sum_hn);
      sum_up(weight_sums_, i, n, grad);
      if (bias_sums_) sum_up(bias_sums_, i, broadcast(1), grad);
    }
    write_x(a_.means ? -sum(sum_h) / count : 0, -sum(sum_hn) / count);
  }

 private:
  Floats normed(int64_t i) const {
    return multiply(add(load_row<Dtype>(x_, i, a_.columns), minus_mean_), inverse_);
  }

  void sum_up(float* sums, int64_t i, Floats factor, Floats grad) const {
    const Floats so_far = load_row<kFloat32>(sums, i, a_.columns);
    store_row<kFloat32>(sums, i, a_.columns, multiply_add(factor, grad, so_far));
  }

  void write_x(float minus_mean_h, float minus_mean_hn) const {
    void* out = offset(a_.grad_x, Dtype, row_ * a_.columns);
    const void* more = a_.grad_stream
                           ? offset(a_.grad_stream, Dtype, row_ * a_.grad_stream_stride)
                           : nullptr;
    for (int64_t i = 0; i < a_.columns; i += kLanes) {
      const Floats grad = load_row<Grad>(grad_, i, a_.columns);
      const Floats weight = load_row<Weight>(a_.weight, i, a_.columns);
      Floats v = multiply_add(normed(i), broadcast(minus_mean_hn), broadcast(minus_mean_h));
      v = multiply_add(grad, weight, v);
      const Floats base = more ? load_row<Dtype>(more, i, a_.columns) : zero();
      store_row<Dtype>(out, i, a_.columns, multiply_add(v, inverse_, base));
    }
  }

  const NormBackwardArguments& a_;
  const int64_t row_;
  const void *x_, *grad_;
  const Floats inverse_, minus_mean_;
  float *weight_sums_, *bias_sums_;
};

template <int Dtype, int Weight, int Grad>
void norm_gradients(const NormBackwardArguments& a, int64_t part) {
  const int64_t D = a.columns, begin = part * a.rows / a.parts, end = (part + 1) * a.rows / a.parts;
  float* weight_sums = a.weight_sums + part * D;
  float* bias_sums = a.bias_sums ? a.bias_sums + part * D : nullptr;
  std::memset(weight_sums, 0, D * sizeof(float));
  if (bias_sums) std::memset(bias_sums, 0, D * sizeof(float));
  for (int64_t row = begin; row < end; ++row) {
    NormGradient<Dtype, Weight, Grad>(a, row, weight_sums, bias_sums).run();
  }
}

}  // namespace

void norm_backward(const NormBackwardArguments& a) {
  parallel_for(a.parts, 1, a.threads, [&](int64_t first, int64_t last) {
    with_dtype(a.x_dtype, [&](auto x_dtype) {
      with_dtype(a.weight_dtype, [&](auto weight_dtype) {
        constexpr int X = decltype(x_dtype)::value, W = decltype(weight_dtype)::value;
        for (int64_t part = first; part < last; ++part) {
          a.grad_dtype == X ? norm_gradients<X, W, X>(a, part)
                            : norm_gradients<X, W, kFloat32>(a, part);
        }
      });
    });
  });
}

}  // namespace glm::GLM_ISA
