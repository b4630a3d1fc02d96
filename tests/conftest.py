"""Fixtures of every test: fixed seeds, one thread, no network, no stray device."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

# Before any library reads them: hub clients answer from the disk only, and nobody asks a
# tokenizer's thread pool to fork.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As the glm command does: threads that wait sleep, also where other programs use the cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# What somebody measured on this machine changes no test.
os.environ["GLM_KERNELS_TUNING"] = "off"

import pytest
import torch

# Before Triton is imported: without a GPU its interpreter runs the GPU kernels on the CPU.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    """Each test starts from the same random state, and leaves torch's settings and the library's
    logging, which the glm command sets up, as they were."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    for name in ("glm_core", "glm_kernels"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, visibly, what needs a device that is not there."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
