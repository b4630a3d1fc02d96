"""What was measured on this device: the table that ``glm bench kernels --tune`` writes.

A table has two parts: block sizes of the Triton kernels (`glm_kernels.triton.tuning` reads them)
and rankings, the answers to a question from the fastest to the slowest. It is found by itself in
``~/.cache/glm-lab/tuning`` (``$GLM_CACHE/tuning``). ``GLM_KERNELS_TUNING`` names another file, or
is ``off``: then the built-in choices hold, as on a machine that never measured. A table is JSON:

    {"format": 1, "device": "NVIDIA H200", "torch": "2.15.0",
     "configs": {"attention_forward": {"h128": {"BLOCK_M": 128, ...}}},
     "rankings": {"attention": {"training prefix half 2048": ["triton", "flex", "sdpa"]}}}
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

logger = logging.getLogger(__name__)

TABLE_VARIABLE = "GLM_KERNELS_TUNING"
OFF = "off"
FORMAT = 1
REMEDY = "measure again with `glm bench kernels --tune`"


class Cached(Protocol):
    """What functools.cache makes of a function."""

    def cache_clear(self) -> None:
        """Forget all results."""


CachedT = TypeVar("CachedT", bound=Cached)

Configs = dict[str, dict[str, dict[str, int]]]
"""{kernel: {class of shapes: block sizes}}."""
Rankings = dict[str, dict[str, list[str]]]
"""{question: {case: answers, the fastest first}}."""


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured; empty on a machine that never measured."""

    configs: Configs = field(default_factory=dict)
    rankings: Rankings = field(default_factory=dict)


_EMPTY = Table()
_override: list[Table] = []


def table_of(device: torch.device) -> Table:
    """Return the table that holds for a device: read once, then remembered.

    Raises:
        ValueError: the file that the environment names cannot be read, or is of another device or
            version of PyTorch. One that was found by itself is passed over with a warning.
    """
    if _override:
        return _override[-1]
    return _found(device, torch.get_num_threads() if device.type == "cpu" else 0)


def ranking(question: str, case: str, device: torch.device) -> list[str]:
    """Return the answers to a question, the fastest first; none where it was not measured."""
    return table_of(device).rankings.get(question, {}).get(case, [])


@contextmanager
def use_table(table: Table) -> Iterator[None]:
    """Let this table hold inside the ``with`` block, on every device."""
    _override.append(table)
    forget()
    try:
        yield
    finally:
        _override.pop()
        forget()


_forgetting: list[Cached] = []


def remembers(cached: CachedT) -> CachedT:
    """Have the cache of a function that reads tables emptied whenever the table may be another."""
    _forgetting.append(cached)
    return cached


def forget() -> None:
    """Read the tables again at the next question."""
    _found.cache_clear()
    for cached in _forgetting:
        cached.cache_clear()


def device_name(device: torch.device) -> str:
    """Return what a table says it was measured on.

    The GPU's name; on a CPU its model, the widest instructions that PyTorch uses, and its threads.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{_cpu_model()}, {isa}, {torch.get_num_threads()} threads"


def default_path(device: torch.device) -> Path:
    """Return where the table of a device is looked for."""
    root = Path(os.environ.get("GLM_CACHE") or "~/.cache/glm-lab").expanduser()
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return root / "tuning" / f"{slug}.json"


def write_table(table: Table, device: torch.device, path: Path) -> None:
    """Write a table of this device: the file is whole or as it was before.

    Raises:
        OSError: the folder cannot be made or written.
    """
    head = {"format": FORMAT, "device": device_name(device), "torch": torch.__version__}
    content = {**head, "configs": table.configs, "rankings": table.rankings}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    forget()


def read_table(path: Path, device: torch.device) -> Table:
    """Read a table.

    Raises:
        ValueError: it cannot be read, or was measured on another device or version of PyTorch.
    """
    try:
        content = json.loads(path.read_bytes())
        measured_on, by, version = content["device"], content["torch"], content["format"]
        if version != FORMAT:
            raise ValueError(f"format {version!r}, not {FORMAT}")
        table = Table(_configs(content["configs"]), _rankings(content["rankings"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no table of measured kernels ({type(error).__name__}: {error})"
        ) from error
    if measured_on != device_name(device):
        raise ValueError(f"{path} was measured on {measured_on}, but this is {device_name(device)}")
    if by != torch.__version__:
        raise ValueError(f"{path} was measured with torch {by}, but this is {torch.__version__}")
    return table


@cache
def _found(device: torch.device, num_threads: int) -> Table:
    """As `table_of`; the number of threads is part of a CPU's name."""
    del num_threads
    named = os.environ.get(TABLE_VARIABLE)
    if named == OFF:
        return _EMPTY
    if named:
        try:
            return read_table(Path(named), device)
        except ValueError as error:
            raise ValueError(
                f"{TABLE_VARIABLE} names a table that does not fit: {error}; {REMEDY}, or unset "
                "the variable"
            ) from error
    path = default_path(device)
    if not path.exists():
        return _EMPTY
    try:
        table = read_table(path, device)
        logger.debug("automatic choices follow %s", path)
        return table
    except ValueError as error:
        logger.warning("the built-in choices hold: %s; %s, or delete the file", error, REMEDY)
        return _EMPTY


def _configs(value: Any) -> Configs:
    return {
        str(op): {
            str(shape): {str(name): _int(size) for name, size in config.items()}
            for shape, config in shapes.items()
        }
        for op, shapes in value.items()
    }


def _rankings(value: Any) -> Rankings:
    return {
        str(question): {
            str(case): [_str(answer) for answer in answers] for case, answers in cases.items()
        }
        for question, cases in value.items()
    }


def _int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name")
    return value


@cache
def _cpu_model() -> str:
    """Return what the processor calls itself, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip().lower() == "model name":
                    return value.strip()
    except OSError:
        logger.debug("no /proc/cpuinfo here")
    return platform.processor() or platform.machine()
