"""Design rule 11: `import glm_core` loads torch and little else."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import codegeex
import glm_core
import glm_kernels

HEAVY = frozenset(
    "accelerate datasets datasketch deepspeed diffusers huggingface_hub ipykernel jupyter_client "
    "lsprotocol matplotlib open_clip PIL pandas pyarrow pygls scipy sklearn tensorboard timm "
    "torchvision transformers tree_sitter triton xformers zmq".split()
)

# Files of Triton kernels are imported at the first call of their op; the process of llama.cpp runs
# in an environment of its own, as does that of chatglm.cpp and what writes llama.cpp's file;
# kernel_main is the program of the code interpreter's kernel; the language server is imported by
# its command, which asks for its packages first.
LATE = (
    "glm_kernels.triton.",
    "glm_core.bench.llama_worker",
    "glm_core.bench.chatglm_cpp_worker",
    "glm_core.agent.executor.inside.kernel_main",
    "codegeex.bench.llama_file",
    "codegeex.lsp.",
)


def loaded_by(statements: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statements`."""
    code = f"{statements}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def modules_of(package) -> list[str]:
    return [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


@pytest.fixture(scope="module")
def loaded_by_torch() -> set[str]:
    return loaded_by("import torch")


def test_torch_is_enough_when_glm_core_is_imported(loaded_by_torch):
    extra = loaded_by("import torch, glm_core, glm_kernels") - loaded_by_torch
    assert extra & HEAVY == set()
    assert extra <= {"glm_core", "glm_kernels", "einops", "numpy"}


def test_optional_packages_stay_out_when_every_module_is_imported(loaded_by_torch):
    names = [*modules_of(glm_core), *modules_of(glm_kernels), *modules_of(codegeex)]
    names = [name for name in names if not name.startswith(LATE)]
    assert len(names) > 20
    everything = "\n".join(f"import {name}" for name in names)
    assert loaded_by(everything) & HEAVY - loaded_by_torch == set()


@pytest.mark.parametrize("name", ["cogvlm", "relay_diffusion", "webglm"])
def test_sibling_says_what_is_true_when_imported(name):
    doc = importlib.import_module(name).__doc__
    assert doc
    assert "Today" in doc
