"""`glm bench kernels`: every kernel against what people use today, alternating in one run.

`run.measure` goes through the groups: `products` (weight-only GEMV and GEMM), `fused` and
`attention` (forward, and forward with backward), `memory` (weights of a 6B model, cross-entropy).
Each gives `Contest`s, whose contenders `contest` runs by turns; `row` says what a result is and
whether it reaches the goal.
"""
