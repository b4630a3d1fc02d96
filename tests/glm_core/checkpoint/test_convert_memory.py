"""Memory of a conversion: two tensors and a constant, whatever the model's size.

A child process converts a synthetic checkpoint that is larger than the memory it may take, by
resource.setrlimit: what it would keep beyond that kills it with MemoryError.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from glm_core.checkpoint.files import safetensors_head, write_json
from glm_core.checkpoint.formats import FORMATS
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.keymap import entries, expand, shape_on_rank
from glm_core.model.presets import preset
from glm_core.quantize.layout import SCALE_SUFFIX
from glm_core.testing import tiny_config

logger = logging.getLogger(__name__)

MB = 10**6
# Beside two tensors. The least that held on one machine: 16 MB, for quantize_int4 and
# reshard_2_to_4; 50 MB for dequantize_int4.
SLACK = 80 * MB

CHILD = """
import json, os, resource, sys, traceback
import torch
from pathlib import Path
import glm_core.model.transformer, glm_core.tokenizer.loading
from glm_core.checkpoint.convert import convert

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def run(job):
    resident, limit = status("VmRSS:"), status("VmData:") + job.pop("allowance")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    dtype, error = job.pop("dtype"), None
    try:
        convert(**job, dtype=dtype and getattr(torch, dtype))
    except BaseException:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        error = traceback.format_exc()
    growth = status("VmHWM:") - resident
    print(json.dumps({"limit": limit, "growth": growth, "error": error}), flush=True)

torch.set_num_threads(1)
for job in json.loads(sys.argv[1]):
    if os.fork() == 0:  # each with fresh memory, and torch imported once
        run(job)
        os._exit(0)
    os.wait()
"""


@dataclass(frozen=True)
class Case:
    """One way through the converter."""

    family: str
    source: str
    """Format of the source."""
    to: str
    source_ranks: int = 1
    ranks: int = 1
    stored: torch.dtype = torch.float16
    stored_bits: int = 0
    dtype: str | None = None
    bits: int | None = None
    is_pickle: bool = False


CASES = {
    "single_file": Case("chatglm2-6b", "chatglm2", "glm-lab"),
    "fused_from_parts": Case("llama-7b", "llama", "glm-lab"),
    "head_compared_and_copied": Case("chatglm-6b", "chatglm", "chatglm"),
    "reshard_2_to_4": Case("glm-130b", "glm-130b", "glm-130b", source_ranks=2, ranks=4),
    "merge_4": Case("codegeex-13b", "codegeex-13b", "glm-lab", source_ranks=4, is_pickle=True),
    "pickle": Case("chatglm2-6b", "chatglm2", "glm4-hf", is_pickle=True),
    "dtype": Case("glm-4-9b", "chatglm2", "glm4-hf", stored=torch.float32, dtype="bfloat16"),
    "quantize_int4": Case("chatglm2-6b", "chatglm2", "chatglm2", bits=4),
    "quantize_ranks": Case(
        "glm-130b", "glm-130b", "glm-130b", source_ranks=2, ranks=4, bits=4, stored=torch.bfloat16
    ),
    "dequantize_int4": Case("chatglm2-6b", "chatglm2", "glm-lab", stored_bits=4, bits=0),
    "rows_as_they_are": Case("chatglm2-6b", "chatglm2", "glm-lab", stored_bits=8),
}


def config_of(family, width, layers):
    """Wide enough that the matrices of the blocks are all there is."""
    return tiny_config(
        family,
        vocab_size=512,
        num_layers=layers,
        num_heads=8,
        head_dim=width // 8,
        hidden_size=width,
        ffn_hidden_size=4 * width,
        rotary_dim=width // 8 if family in ("llama-7b", "glm-130b", "chatglm-6b") else width // 16,
        residual_scale={"glm-130b": (2 * layers) ** 0.5}.get(family, preset(family).residual_scale),
    )


def kinds_of(case, config):
    """Dtype and shape of everything a rank of the source stores."""
    format = FORMATS[case.source]
    table = entries(expand(format.table(config), config.num_layers, format.prefix))
    kinds = {}
    for name, shape in parameter_shapes(config).items():
        stored = shape_on_rank(table[name], config, shape, case.source_ranks)
        for theirs, size in stored.items():
            if case.stored_bits and len(size) == 2 and ".layers." in theirs:
                kinds[theirs] = (torch.int8, (size[0], size[1] * case.stored_bits // 8))
                kinds[theirs + SCALE_SUFFIX] = (torch.float16, (size[0],))
            else:
                kinds[theirs] = (case.stored, size)
    if case.source == "chatglm":
        kinds["lm_head.weight"] = kinds["transformer.word_embeddings.weight"]
    return kinds


def save(path, kinds):
    """Zeros, in a sparse file where the format allows."""
    if path.suffix != ".safetensors":
        torch.save(
            {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in kinds.items()}, path
        )
        return
    head, begins = safetensors_head(kinds, {"format": "pt"})
    path.write_bytes(head)
    last = max(begins, key=begins.get)
    dtype, shape = kinds[last]
    os.truncate(path, begins[last] + torch.Size(shape).numel() * dtype.itemsize)


def write_source(folder, case, config):
    format = FORMATS[case.source]
    folder.mkdir(parents=True)
    write_json(folder / "config.json", format.write_config(config))
    for rank in range(case.source_ranks):
        stem, suffix = (
            f"mp_rank_{rank:02d}_model_states",
            ".pt" if case.is_pickle else ".safetensors",
        )
        if not format.is_tensor_parallel:
            stem, suffix = ("pytorch_model", ".bin") if case.is_pickle else ("model", suffix)
        save(folder / (stem + suffix), kinds_of(case, config))


def size_of_files(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def largest_of(case, config):
    """Bytes of the largest tensor, as it is stored or as it is written."""
    itemsize = max(case.stored.itemsize, getattr(torch, case.dtype or "int8").itemsize)
    return max(torch.Size(shape).numel() for shape in parameter_shapes(config).values()) * itemsize


def convert_in_child(folder, cases, width, layers, slack):
    """Converts one case after the other in one child process.

    Returns:
        For each case what the child measured, the larger of both sizes, and the largest tensor.
    """
    jobs, largest = [], []
    for name in cases:
        case = CASES[name]
        config = config_of(case.family, width, layers * (2 if case.stored_bits == 8 else 1))
        write_source(folder / name / "source", case, config)
        largest.append(largest_of(case, config))
        job = {"source": str(folder / name / "source"), "target": str(folder / name / "target")}
        job |= {"to": case.to, "ranks": case.ranks, "dtype": case.dtype, "bits": case.bits}
        jobs.append(job | {"allowance": 2 * largest[-1] + slack})
    command = [sys.executable, "-c", CHILD, json.dumps(jobs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    results = {}
    for name, line, tensor in zip(cases, done.stdout.splitlines(), largest, strict=True):
        sizes = [size_of_files(path) for path in (folder / name).iterdir()]
        results[name] = json.loads(line) | {"size": max(sizes), "largest": tensor}
        shutil.rmtree(folder / name)
        logger.info("%s: %s", name, results[name])
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return convert_in_child(tmp_path_factory.mktemp("memory"), list(CASES), 1024, 4, SLACK)


@pytest.mark.parametrize("name", CASES)
def test_memory_is_two_tensors_and_a_constant_whatever_the_way(results, name):
    result = results[name]
    assert result["error"] is None, result["error"]
    allowance = 2 * result["largest"] + SLACK
    assert result["size"] > allowance  # the whole would not have fitted
    assert result["growth"] < allowance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_file", "reshard_2_to_4", "merge_4", "quantize_int4"])
def test_checkpoint_larger_than_all_of_the_memory_converts(tmp_path, name):
    """The limit here counts what Python and torch take, too."""
    result = convert_in_child(tmp_path, [name], 2048, 10, 100 * MB)[name]
    assert result["error"] is None, result["error"]
    assert result["size"] > result["limit"]
