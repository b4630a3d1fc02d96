"""Helpers of tests: errors that report themselves, tiny models, several processes.

Part of the library so that the packages built on glm_core test themselves the same way.
"""

from glm_core.testing.adapters import write_lora
from glm_core.testing.distributed import run_distributed
from glm_core.testing.models import TINY_FAMILIES, randomize, tiny_config, tiny_model
from glm_core.testing.numerics import assert_relative, relative_error

__all__ = [
    "TINY_FAMILIES",
    "assert_relative",
    "randomize",
    "relative_error",
    "run_distributed",
    "tiny_config",
    "tiny_model",
    "write_lora",
]
