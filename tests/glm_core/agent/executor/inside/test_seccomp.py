"""The system-call filter, run by an interpreter of its own and compared with the headers."""

import re
import struct
from pathlib import Path

import pytest

from glm_core.agent.executor.inside import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
EPERM, EACCES, ENOSYS = 0x50001, 0x5000D, 0x50026


def decide(machine, number, arguments=(0, 0), architecture=None):
    """Interprets the filter as bpf(4) says; returns its verdict."""
    data = struct.pack(
        "=IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *arguments, 0, 0, 0, 0
    )
    code = seccomp.program(machine)
    steps = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    value, position = 0, 0
    while True:
        operation, if_true, if_false, constant = steps[position]
        position += 1
        if operation == 0x20:
            value = struct.unpack_from("=I", data, constant)[0]
        elif operation == 0x06:
            return constant
        else:
            holds = {0x15: value == constant, 0x35: value >= constant, 0x45: value & constant}
            position += if_true if holds[operation] else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_those_of_the_headers_when_these_are_installed(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"{HEADERS[machine]} is not installed")
    pattern = re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)")
    known = {name: int(number) for name, number in pattern.findall(HEADERS[machine].read_text())}
    ours = seccomp.DENIED[machine] | seccomp.DENIED_EVERYWHERE | seccomp.INSPECTED[machine]
    newer = {"memfd_secret", "mount_setattr", "process_madvise", "quotactl_fd"}
    wrong = {name: number for name, number in ours.items() if known.get(name) != number}
    assert {name for name in wrong if name in known or name not in newer} == set()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_is_refused_when_it_is_on_the_list(machine):
    numbers = [*seccomp.DENIED[machine].values(), *seccomp.DENIED_EVERYWHERE.values()]
    assert {decide(machine, number) for number in numbers} == {EPERM}
    inspected = set(seccomp.INSPECTED[machine].values())
    others = set(range(460)) - set(numbers) - inspected
    assert {decide(machine, number) for number in others} == {ALLOWED}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_is_judged_by_its_arguments_when_they_matter(machine):
    calls = seccomp.INSPECTED[machine]
    assert decide(machine, calls["socket"], (1, 1)) == ALLOWED
    assert {decide(machine, calls["socket"], (family, 1)) for family in (2, 10, 16, 40)} == {EACCES}
    assert decide(machine, calls["clone"], (0x01200011, 0)) == ALLOWED  # fork
    assert decide(machine, calls["clone"], (0x003D0F00, 0)) == ALLOWED  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(machine, calls["clone"], (flag | 17, 0)) == EPERM
    assert decide(machine, calls["clone3"]) == ENOSYS
    assert decide(machine, calls["ioctl"], (0, 0x5401)) == ALLOWED
    assert {decide(machine, calls["ioctl"], (0, how)) for how in (0x5412, 0x541C)} == {EPERM}


def test_process_is_killed_when_it_speaks_another_architecture():
    assert decide("x86_64", 0, architecture=0x40000003) == KILLED
    assert decide("x86_64", 0x40000000 | 41, (2, 1)) == ENOSYS


def test_architecture_is_refused_when_its_numbers_are_unknown():
    with pytest.raises(OSError, match="knows x86_64 and aarch64, not mips"):
        seccomp.program("mips")
