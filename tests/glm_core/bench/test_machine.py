"""What rows say about the machine, on made-up machines."""

from __future__ import annotations

import os

import pytest

from glm_core.bench import machine

INFO = """processor : 0
model name\t: Somebody's  Processor @ 2 GHz
flags\t\t: fpu avx512f{}
"""


@pytest.mark.parametrize(
    ("flag", "with_amx", "named"),
    [(" amx_int8", True, True), (" amx_int8", False, False), ("", True, False)],
)
def test_processor_names_amx_when_it_is_there_and_used(
    monkeypatch: pytest.MonkeyPatch, flag: str, with_amx: bool, named: bool
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: INFO.format(flag))
    text = machine.processor(with_amx)
    assert text.startswith(f"Somebody's Processor @ 2 GHz; {os.cpu_count()} cores; ")
    assert text.endswith(" AMX") == named
    assert machine.has_amx() == bool(flag)


def test_processor_has_a_name_when_the_system_tells_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert machine.processor().startswith("unknown processor; ")


def test_available_memory_is_a_number_of_bytes() -> None:
    assert 1 << 24 < machine.available_bytes() < 1 << 50
