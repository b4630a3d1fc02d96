"""Programs that run in a sandbox: what they give, and what ends them."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from glm_core.agent.executor import ExecutorLimits, ProgramSandbox, SandboxUnavailable, enclosure

MIB = 1024 * 1024
LIMITS = ExecutorLimits(
    wall_s=10.0,
    cpu_s=10.0,
    memory_bytes=300 * MIB,
    processes=24,
    file_bytes=2 * MIB,
    disk_bytes=4 * MIB,
    output_chars=10_000,
)


@pytest.fixture(params=["bubblewrap", "unshare"])
def sandbox(request):
    """A fresh sandbox of each kind."""
    try:
        chosen = enclosure(request.param)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with ProgramSandbox(chosen, LIMITS) as fresh:
        yield fresh


def run(sandbox, code, **changed):
    sandbox.write_file("main.py", code.encode())
    command = [sys.executable, "-I", "-S", "-B", f"{sandbox.work_folder}/main.py"]
    return sandbox.run(command, limits=replace(LIMITS, **changed))


def test_streams_and_status_come_back_when_a_program_ends(sandbox):
    result = run(sandbox, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.status, result.stopped) == (3, "")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert 0 < result.seconds < 5
    assert result.peak_bytes > MIB


def test_output_is_whole_when_it_is_longer_than_a_pipe_holds(sandbox):
    result = run(sandbox, "print('x' * 300_000)", output_chars=400_000)
    assert result.stdout == b"x" * 300_000 + b"\n"


def test_signal_is_a_negative_status_when_it_ends_a_program(sandbox):
    result = run(sandbox, "import os; os.kill(os.getpid(), 11)")
    assert (result.status, result.stopped) == (-11, "")


def test_file_that_grows_too_large_ends_a_program_when_it_leaves_signals_alone(sandbox):
    result = sandbox.run(["/bin/sh", "-c", "exec head -c 3000000 /dev/zero > large"])
    assert (result.status, result.stopped) == (-signal.SIGXFSZ, "")


def test_second_program_finds_the_files_of_the_first_when_both_run_in_one_sandbox(sandbox):
    run(sandbox, "open('made', 'w').write('by the first')")
    assert run(sandbox, "print(open('made').read())").stdout == b"by the first\n"
    assert sandbox.read_file("made") == b"by the first"


def test_files_are_gone_when_the_sandbox_is_another(sandbox):
    run(sandbox, "open('made', 'w').write('by the first')")
    with ProgramSandbox(enclosure("auto"), LIMITS) as other:
        assert run(other, "import os; print(os.listdir())").stdout == b"['main.py']\n"


@pytest.mark.parametrize(
    ("stopped", "changed", "code"),
    [
        ("wall_s", {"wall_s": 0.3}, "import time; time.sleep(60)"),
        ("cpu_s", {"cpu_s": 0.3}, "while True: pass"),
        ("output_chars", {}, "while True: print('x' * 1000)"),
        (
            "memory_bytes",
            {},
            "import os, time\n"
            "[os.fork() for _ in range(2)]\nx = b'x' * (150 << 20)\ntime.sleep(60)",
        ),
    ],
)
def test_program_is_ended_when_it_exceeds_a_limit(sandbox, stopped, changed, code):
    result = run(sandbox, code, **changed)
    assert (result.status, result.stopped) == (None, stopped)
    assert result.seconds < 5
    assert len(result.stdout) + len(result.stderr) <= LIMITS.output_chars
    assert run(sandbox, "print('next')").stdout == b"next\n"


def test_children_are_ended_when_the_program_leaves_them_behind(sandbox):
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(1)
    open('late', 'w').close()
"""
    assert run(sandbox, code).seconds < 0.9
    seen = run(sandbox, "import os, time; time.sleep(1.2); print(os.listdir())")
    assert seen.stdout == b"['main.py']\n"


def test_program_that_does_not_exist_says_so_when_it_is_run(sandbox):
    result = sandbox.run(["/usr/bin/no-such-program"])
    assert result.status == 126
    assert b"No such file or directory" in result.stderr


def test_folder_of_the_machine_can_be_read_when_it_is_given(tmp_path, sandbox):
    tmp_path.chmod(0o755)
    (tmp_path / "crate.txt").write_text("vendored")
    name = str(tmp_path / "crate.txt")
    code = f"import os; print(os.path.exists({name!r}))"
    assert run(sandbox, code).stdout == b"False\n"
    with ProgramSandbox(enclosure("auto", (str(tmp_path),)), LIMITS) as other:
        shown = run(other, f"print(open({name!r}).read()); open({name!r}, 'w')")
    assert shown.stdout == b"vendored\n"
    assert b"Read-only file system" in shown.stderr or b"Permission denied" in shown.stderr


def test_program_cannot_end_what_watches_it_when_it_tries(sandbox):
    result = run(sandbox, "import os; print(os.getppid()); os.kill(os.getppid(), 9)")
    assert result.status == 1
    assert b"PermissionError" in result.stderr


def test_run_of_another_thread_ends_when_the_sandbox_is_stopped(sandbox):
    sandbox.write_file("main.py", b"import time; time.sleep(60)")
    command = [sys.executable, "-I", "-S", f"{sandbox.work_folder}/main.py"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sandbox.run, command)
        time.sleep(0.2)
        sandbox.stop()
        result = running.result(timeout=20)
    assert (result.status, result.stopped) == (None, "sandbox")


def test_no_descriptor_is_left_open_when_many_programs_ran(sandbox):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run(sandbox, "print()")
    assert len(os.listdir("/proc/self/fd")) == before
