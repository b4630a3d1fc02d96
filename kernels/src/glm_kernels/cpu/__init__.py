"""Implementations for training on the CPU: few passes over memory, nothing saved twice.

Importing this package registers them as backend ``cpu``, which the automatic choice prefers on a
CPU. They are `torch.autograd.Function` objects that torch.compile need not look into: it gets the
plain formula of backend ``torch`` and fuses that itself.
"""

from glm_kernels.cpu import activation, norm, rope, softmax, weight_only

__all__ = ["activation", "norm", "rope", "softmax", "weight_only"]
