"""A code interpreter per sandbox, shared by the tests of a file, and a hard limit for each test."""

import os
import signal

import pytest

from glm_core.agent.executor import ExecutorLimits, SandboxUnavailable, executor
from glm_core.agent.executor.choose import working_sandbox

MIB = 1024 * 1024
LIMITS = ExecutorLimits(
    wall_s=20.0,
    grace_s=0.2,
    cpu_s=10.0,
    memory_bytes=400 * MIB,
    processes=40,
    file_bytes=4 * MIB,
    disk_bytes=8 * MIB,
    disk_files=200,
    output_chars=10_000,
    images=3,
    image_bytes=MIB,
)
HARD_LIMIT_S = 60


@pytest.fixture(autouse=True)
def hard_limit():
    """Ends a test that waits for a sandbox which never answers."""

    def give_up(*_):
        raise TimeoutError(f"the test took longer than {HARD_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HARD_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def open_sandbox(kind, limits=LIMITS):
    """Returns an executor, or skips where this machine has no such sandbox."""
    try:
        return executor(kind, limits)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def sandbox_kind():
    """The sandbox that `auto` takes here."""
    try:
        return working_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def interpreter(sandbox_kind):
    """A running code interpreter in the sandbox that `auto` takes."""
    with open_sandbox(sandbox_kind) as running:
        yield running


@pytest.fixture(scope="module", params=["bubblewrap", "unshare"])
def sandbox(request):
    """A running code interpreter in each kind of sandbox, started beside a secret variable."""
    os.environ["GLM_TEST_SECRET"] = "sk-secret"
    with open_sandbox(request.param) as running:
        running.start()
        del os.environ["GLM_TEST_SECRET"]
        yield running
    os.environ.pop("GLM_TEST_SECRET", None)
