// Functions of sixteen numbers at once. Included for each instruction set.
#pragma once

#include "decode_abi.h"
#include "rows.h"

namespace glm::GLM_ISA {
namespace {

// e^x with a relative error below 2e-7; 0 below -87.7 and infinity above 88.4, a little early.
// Source: the polynomial of the Cephes library's expf.
inline Floats exponential(Floats v) {
  const Floats x = clamp(v, -88.0f, 89.0f), round = broadcast(0x1.8p23f);
  // adding 1.5 * 2^23 and taking it away leaves the nearest integer
  const Floats n = add(multiply_add(x, broadcast(1.44269504f), round), broadcast(-0x1.8p23f));
  Floats r = multiply_add(n, broadcast(-0.693359375f), x);
  r = multiply_add(n, broadcast(2.12194440e-4f), r);
  Floats p = broadcast(1.9875691500e-4f);
  p = multiply_add(p, r, broadcast(1.3981999507e-3f));
  p = multiply_add(p, r, broadcast(8.3334519073e-3f));
  p = multiply_add(p, r, broadcast(4.1665795894e-2f));
  p = multiply_add(p, r, broadcast(1.6666665459e-1f));
  p = multiply_add(p, r, broadcast(5.0000001201e-1f));
  p = add(multiply_add(multiply(p, r), r, r), broadcast(1));
  return multiply(p, power_of_two(n));
}

inline Floats reciprocal(Floats v) { return divide(broadcast(1), v); }

inline Floats sigmoid(Floats x) {
  return reciprocal(add(broadcast(1), exponential(multiply(x, broadcast(-1)))));
}

// The normal distribution's share below x, (1 + erf(x / sqrt 2)) / 2: a polynomial in
// 1 / (1 + 0.46 z), z = |x| / sqrt 2, fitted to e^(z^2) erfc(z), off by less than 5e-9.
inline Floats normal_share(Floats x) {
  constexpr float kCoefficients[] = {-0.43916353f, 0.69167338f, -0.20406723f,
                                     0.36950801f,  0.23363449f, 0.26146944f};
  const Floats t = reciprocal(multiply_add(absolute(x), broadcast(0.46f * 0.70710678f),
                                           broadcast(1)));
  Floats p = broadcast(0.08694543f);
  for (float c : kCoefficients) p = multiply_add(p, t, broadcast(c));
  const Floats decay = exponential(multiply(multiply(x, x), broadcast(-0.5f)));
  const Floats tail = multiply(multiply(p, t), multiply(decay, broadcast(0.5f)));
  return where_negative(x, tail, multiply_add(tail, broadcast(-1), broadcast(1)));
}

// What the sigmoid is taken of in an activation: x sigmoid(u(x)); 1 + tanh(y) = 2 sigmoid(2y).
template <int Kind>
inline Floats inside(Floats x) {
  if (Kind == kGeluQuick) return multiply(x, broadcast(1.702f));
  if (Kind == kSilu) return x;
  const Floats cubic = multiply_add(multiply(x, x), broadcast(0.044715f), broadcast(1));
  return multiply(multiply(x, broadcast(1.59576912f)), cubic);
}

template <int Kind>
inline Floats activated(Floats x) {
  return multiply(x, Kind == kGeluErf ? normal_share(x) : sigmoid(inside<Kind>(x)));
}

// The activation's derivative: s + x s (1 - s) u'(x).
template <int Kind>
inline Floats slope(Floats x) {
  if (Kind == kGeluErf) {
    const Floats density = exponential(multiply(multiply(x, x), broadcast(-0.5f)));
    return multiply_add(multiply(x, density), broadcast(0.39894228f), normal_share(x));
  }
  const Floats u = inside<Kind>(x);
  // s (1 - s) = e / (1 + e)^2 with e = exp(-|u|), which neither cancels nor overflows
  const Floats e = exponential(multiply(absolute(u), broadcast(-1)));
  const Floats whole = reciprocal(add(broadcast(1), e)), part = multiply(e, whole);
  Floats spread = multiply(x, multiply(part, whole));
  if (Kind == kGeluQuick) spread = multiply(spread, broadcast(1.702f));
  if (Kind == kGeluTanh) {
    const Floats square = multiply_add(multiply(x, x), broadcast(0.134145f), broadcast(1));
    spread = multiply(spread, multiply(square, broadcast(1.59576912f)));
  }
  return add(where_negative(u, part, whole), spread);
}

inline float exponential(float x) {
  float lanes[kLanes];
  store(lanes, exponential(broadcast(x)));
  return lanes[0];
}

}  // namespace
}  // namespace glm::GLM_ISA
