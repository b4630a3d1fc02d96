"""Which back end is taken, and what is said when there is none."""

import os
from contextlib import contextmanager

import pytest

from glm_core.agent.executor import ExecutorLimits, SandboxUnavailable, choose, executor
from glm_core.agent.executor.enclosure import Launch
from glm_core.agent.executor.local import UnsafeLocal
from glm_core.agent.executor.session import KernelExecutor


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """Nothing is installed, and nothing is remembered."""
    monkeypatch.setenv("PATH", str(tmp_path))
    choose.working_sandbox.cache_clear()
    yield
    choose.working_sandbox.cache_clear()


def test_auto_takes_a_sandbox_when_one_works(sandbox_kind):
    chosen = executor()
    assert chosen.is_sandboxed
    assert chosen.enclosure.name == sandbox_kind


def test_auto_refuses_with_the_command_when_no_sandbox_works(no_programs):
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap.*unsafe-local"):
        executor()


@pytest.mark.parametrize(
    ("kind", "package"), [("bubblewrap", "bubblewrap"), ("unshare", "util-linux")]
)
def test_named_sandbox_is_refused_when_it_is_not_installed(no_programs, kind, package):
    with pytest.raises(SandboxUnavailable, match=f"{kind} is not installed: apt-get.* {package}"):
        executor(kind)


def test_sandbox_counts_as_missing_when_its_program_is_there_but_fails(no_programs, tmp_path):
    for name in ("bwrap", "unshare"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'creating namespaces: Operation not permitted' >&2\n")
        program.chmod(0o755)
    with pytest.raises(SandboxUnavailable, match="does not work here: creating namespaces: Oper"):
        executor()


def test_unsafe_executor_says_so_when_it_is_named():
    chosen = executor("unsafe-local")
    assert not chosen.is_sandboxed


def test_kind_is_refused_when_it_is_unknown():
    with pytest.raises(ValueError, match="'docker' is unknown: choose one of auto, bubblewrap"):
        executor("docker")


def test_unsafe_executor_runs_code_and_removes_its_folder_when_it_closes():
    with executor("unsafe-local", ExecutorLimits(grace_s=0.2)) as running:
        running.write_file("in.txt", b"5")
        result = running.run("import os; print(os.getcwd()); open('in.txt').read()")
        folder = result.stdout.strip()
        assert result.text == "'5'"
        assert os.path.isdir(folder)
        stopped = running.run(
            "import subprocess; subprocess.Popen(['setsid', 'sleep', '600'])\nwhile True: pass",
            timeout_s=0.2,
        )
        assert stopped.timed_out
        assert sleepers(folder) == []
    assert not os.path.exists(os.path.dirname(folder))


def sleepers(folder):
    """Returns the processes that work in a folder and sleep."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{pid}/comm").read().strip()
            if command == "sleep" and os.readlink(f"/proc/{pid}/cwd") == folder:
                found.append(pid)
        except OSError:
            continue
    return found


def test_folder_is_removed_when_the_first_process_never_starts(monkeypatch, tmp_path):
    class Broken(UnsafeLocal):
        @contextmanager
        def launch(self, limits):
            with super().launch(limits) as launch:
                yield Launch(command=["/bin/false"], config=launch.config)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="does not work here"):
        KernelExecutor(Broken()).start()
    assert list(tmp_path.iterdir()) == []
