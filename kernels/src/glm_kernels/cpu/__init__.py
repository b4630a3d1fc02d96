"""Compiled implementations for the CPU (native/), and a few of PyTorch's operations.

Importing this package registers them as backend ``cpu``, which the automatic choice prefers on a
CPU. torch.compile gets the plain formula of backend ``torch`` instead and fuses that itself, unless
backend ``cpu`` is named: then it sees custom ops.
"""

from glm_kernels.cpu import activation, attention, norm, rope, softmax, weight_only

__all__ = ["activation", "attention", "norm", "rope", "softmax", "weight_only"]
