"""One executor for all files: finding the tools of six languages takes a second."""

import pytest

from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.execute import Executor
from codegeex.evaluate.runners.base import ToolMissing
from glm_core.agent.executor import SandboxUnavailable
from glm_core.agent.executor.limits import MIB

CONFIG = ExecutionConfig(
    wall_s=30.0,
    cpu_s=1.0,
    memory_bytes=256 * MIB,
    processes=40,
    output_bytes=20_000,
    file_bytes=4 * MIB,
    disk_bytes=64 * MIB,
)


@pytest.fixture(scope="session")
def executor():
    """Runs programs in the sandbox that works here."""
    try:
        return Executor(CONFIG)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def tools(executor):
    """Returns the tools of a language; skips the test where there are none."""

    def find(language):
        try:
            return executor.toolchain(language)
        except ToolMissing as error:
            pytest.skip(str(error))

    return find
