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


@pytest.fixture(scope="session")
def sandboxes():
    """Opens each kind of sandbox once for all files; their callers have a secret variable."""
    opened = {}

    def open_one(kind):
        if kind not in opened:
            try:
                opened[kind] = executor(kind, LIMITS)
            except SandboxUnavailable as error:
                pytest.skip(str(error))
            opened[kind].start()
        return opened[kind]

    os.environ["GLM_TEST_SECRET"] = "sk-secret"
    yield open_one
    del os.environ["GLM_TEST_SECRET"]
    for running in opened.values():
        running.close()


@pytest.fixture(scope="session")
def sandbox_kind():
    """The sandbox that `auto` takes here."""
    try:
        return working_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def interpreter(sandboxes, sandbox_kind):
    """A running code interpreter in the sandbox that `auto` takes."""
    return sandboxes(sandbox_kind)


@pytest.fixture(params=["bubblewrap", "unshare"])
def sandbox(request, sandboxes):
    """A running code interpreter in each kind of sandbox."""
    return sandboxes(request.param)
