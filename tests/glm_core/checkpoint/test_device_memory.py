"""Amounts of memory: how they are written, and what the system says is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glm_core.checkpoint import device_memory
from glm_core.checkpoint.device_memory import (
    Budget,
    free_memory,
    memory_budget,
    parse_memory,
    readable,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [
        (1, 1),
        (6_000_000_000, 6_000_000_000),
        ("123", 123),
        ("6GB", 6_000_000_000),
        ("6g", 6_000_000_000),
        ("512MiB", 512 * 1024**2),
        (" 1.5 GiB ", 3 * 2**29),
        ("20kb", 20_000),
        ("2T", 2 * 10**12),
    ],
)
def test_amount_is_read_when_written_as_people_do(written: int | str, num_bytes: int) -> None:
    assert parse_memory(written) == num_bytes


@pytest.mark.parametrize("written", ["", "GB", "-3GB", "6 GBB", "six", "1e9", True, "1,5GB", -1])
def test_amount_is_refused_when_it_is_none(written: int | str) -> None:
    with pytest.raises(ValueError, match="--max-memory is .*: give bytes, or a number with a unit"):
        parse_memory(written, "--max-memory")


@pytest.mark.parametrize("written", [0, "0GB", "0.1B"])
def test_amount_is_refused_when_it_is_nothing(written: int | str) -> None:
    with pytest.raises(ValueError, match="max_memory is .*: it must be at least 1 byte"):
        parse_memory(written)


def test_amount_reads_well_when_shown() -> None:
    shown = [readable(n) for n in (0, 40_000, 12_345_678, 999_000_000, 4_900_000_000, 2 * 10**12)]
    assert shown == ["0.0 kB", "40.0 kB", "12.3 MB", "1.0 GB", "4.9 GB", "2.0 TB"]


def test_free_memory_is_that_of_the_machine_when_nothing_limits_it() -> None:
    psutil = pytest.importorskip("psutil")
    free = free_memory(CPU)
    assert free is not None and 0 < free <= psutil.virtual_memory().total


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 MB available, no limits."""
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  8000 kB\n")
    (tmp_path / "own").write_text("0::/user/job\n")
    monkeypatch.setattr(device_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(device_memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(device_memory, "_OWN_CGROUP", tmp_path / "own")
    return tmp_path


def test_free_memory_is_what_the_tightest_limit_leaves_when_in_a_container(machine: Path) -> None:
    assert free_memory(CPU) == 8_000 * 1024
    write(machine / "cgroup" / "user" / "job", memory__max="max", memory__current=5)
    assert free_memory(CPU) == 8_000 * 1024
    limits = {"memory__max": 3_000_000, "memory__current": 2_000_000}
    write(machine / "cgroup" / "user", **limits, memory__stat="anon 1\ninactive_file 500000")
    assert free_memory(CPU) == 1_500_000


def test_free_memory_knows_limits_when_the_container_is_of_version_1(machine: Path) -> None:
    (machine / "own").write_text("5:cpu:/x\n4:memory:/host/path\n0::/\n")
    # only the root of the container is mounted
    names = {"memory__limit_in_bytes": 4_000_000, "memory__usage_in_bytes": 3_000_000}
    write(machine / "cgroup" / "memory", **names)
    assert free_memory(CPU) == 1_000_000
    write(machine / "cgroup" / "memory", memory__usage_in_bytes=5_000_000)
    assert free_memory(CPU) == 0


def test_smaller_amount_rules_when_both_are_known(machine: Path) -> None:
    assert memory_budget(CPU, None) == Budget(8_192_000, "free on cpu")
    assert memory_budget(CPU, "5MB") == Budget(5_000_000, "max_memory")
    assert memory_budget(CPU, "5GB") == Budget(8_192_000, "free on cpu")
    assert memory_budget(torch.device("meta"), "5GB") == Budget(5 * 10**9, "max_memory")
    assert memory_budget(torch.device("meta"), None) is None


@pytest.mark.gpu
def test_free_memory_is_that_of_the_device_when_it_is_cuda() -> None:
    free = free_memory(torch.device("cuda"))
    total = torch.cuda.get_device_properties(0).total_memory
    assert free is not None and 0 < free <= total
