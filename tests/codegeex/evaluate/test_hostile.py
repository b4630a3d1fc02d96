"""Evaluated code that means harm: the verdict is right, and nothing outside changes."""

import os
import signal
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.execute import Executor
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Work
from glm_core.agent.executor import SandboxUnavailable
from glm_core.agent.executor.limits import MIB

CONFIG = ExecutionConfig(
    wall_s=30.0,
    cpu_s=1.0,
    memory_bytes=256 * MIB,
    processes=40,
    file_bytes=4 * MIB,
    disk_bytes=16 * MIB,
)


@pytest.fixture(scope="module", params=["bubblewrap", "unshare"])
def executor(request):
    """Runs programs in each kind of sandbox."""
    try:
        return Executor(replace(CONFIG, sandbox=request.param))
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def run(executor, source, language="python"):
    return executor.run(Work(task_id="Test/0", language=language, source=source))


def named_processes(mark):
    """Processes of the whole machine whose command line holds a mark."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in command:
            found.append(int(pid))
    return found


def test_loop_ends_when_it_is_infinite(executor):
    began = time.monotonic()
    result = run(executor, "while True: pass")
    assert result.verdict is Verdict.timeout
    assert "processor time" in result.detail
    assert time.monotonic() - began < 30


def test_sleeper_ends_when_its_time_by_the_clock_is_over(executor):
    quick = Executor(replace(CONFIG, wall_s=0.5, sandbox=executor.isolation))
    result = run(quick, "import time; time.sleep(60)")
    assert result.verdict is Verdict.timeout
    assert "ran past 0.5 seconds" in result.detail
    assert result.run_s < 10


def test_fork_bomb_ends_when_it_multiplies(executor):
    """Each generation ignores what would stop it, and calls itself by another name."""
    mark = f"bomb-{executor.isolation}-{os.getpid()}"
    result = run(
        executor,
        f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv('/bin/sleep', ['sleep', '1000', '{mark}'])
    except OSError:
        pass
""",
    )
    assert result.verdict in (Verdict.timeout, Verdict.processes), result
    assert named_processes(mark) == []


def test_memory_is_refused_when_ten_gigabytes_are_asked_for(executor):
    result = run(executor, "x = bytearray(10 << 30)")
    assert result.verdict is Verdict.memory
    assert result.peak_bytes < 600 * MIB


def test_memory_of_all_processes_counts_when_each_stays_below_the_limit(executor):
    result = run(
        executor,
        "import os, time\n[os.fork() for _ in range(3)]\nx = b'x' * (100 << 20)\ntime.sleep(60)",
    )
    assert result.verdict is Verdict.memory


@pytest.fixture
def canaries():
    """Files in the home folder, in the folder of temporary files and in this repository."""
    folders = [Path.home(), Path(tempfile.gettempdir()), Path(__file__).parent]
    files = []
    for folder in folders:
        handle, name = tempfile.mkstemp(prefix=".canary-", dir=folder)
        os.write(handle, b"still here")
        os.close(handle)
        files.append(Path(name))
        files[-1].chmod(0o666)
    yield files
    for file in files:
        file.unlink()


def test_files_stay_when_everything_is_deleted(executor, canaries):
    patient = Executor(replace(CONFIG, cpu_s=30.0, sandbox=executor.isolation))
    result = run(
        patient,
        f"""
import os, shutil, subprocess
for name in {[str(file) for file in canaries]!r}:
    try:
        os.unlink(name)
        raise SystemExit('deleted ' + name)
    except OSError:
        pass
for folder in ('/root', '/home', '/tmp', '/etc', '/var', '/work', '/sandbox', '/mnt'):
    shutil.rmtree(folder, ignore_errors=True)
try:
    subprocess.run(
        ['/bin/rm', '-rf', '--no-preserve-root', '/'], stderr=subprocess.DEVNULL, timeout=0.5
    )
except subprocess.TimeoutExpired:
    pass  # there is much that it may not delete
""",
    )
    assert [file.read_text() for file in canaries] == ["still here"] * 3
    assert result.verdict is Verdict.passed, result  # it found nothing to delete, and went on
    assert run(executor, "assert sorted([2, 1]) == [1, 2]").verdict is Verdict.passed


def test_home_cannot_be_read_when_the_program_knows_the_name(executor, canaries):
    result = run(executor, f"open({str(canaries[0])!r}).read()")
    assert result.verdict is Verdict.runtime_error
    assert "FileNotFoundError" in result.detail


def test_network_is_not_there_when_a_program_looks_for_it(executor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = server.getsockname()
        result = run(executor, f"import socket; socket.create_connection({address!r}, timeout=5)")
        with pytest.raises(TimeoutError):
            server.accept()
    assert result.verdict is Verdict.runtime_error


def test_file_is_cut_off_when_it_becomes_huge(executor):
    free = os.statvfs(tempfile.gettempdir()).f_bavail
    result = run(executor, "with open('huge', 'wb') as f:\n  while True: f.write(b'x' * (1 << 20))")
    assert result.verdict is Verdict.files
    many = "import itertools\nfor i in itertools.count(): open(f'f{i}', 'wb').write(b'x' * 1000000)"
    assert run(executor, many).verdict is Verdict.files
    change = (free - os.statvfs(tempfile.gettempdir()).f_bavail) * 4096
    assert change < 200 * MIB  # others use this machine as well


def test_file_limit_holds_when_the_program_is_not_python(executor):
    source = '#include <cstdio>\nint main() { FILE* f = fopen("huge", "wb");'
    source += ' for (;;) if (fputs("0123456789", f) < 0) return 1; }'
    result = run(executor, source, "c++")
    assert result.verdict in (Verdict.files, Verdict.skipped), result


def test_output_is_cut_off_when_it_never_ends(executor):
    assert run(executor, "while True: print('x' * 1000)").verdict is Verdict.output
    flood = "import os\nwhile True: os.write(2, b'y' * 65536)"
    assert run(executor, flood).verdict is Verdict.output


def test_caller_lives_when_the_program_kills_all_it_can(executor):
    killer = "import os, signal\nfor pid in [os.getppid(), 1, -1, 0]:\n"
    killer += "    try: os.kill(pid, signal.SIGKILL)\n    except OSError as e: print(e)\n"
    result = run(executor, killer)
    assert result.verdict is Verdict.runtime_error
    assert signal.SIGKILL.name in result.detail
    parents = f"import os\nos.kill({os.getpid()}, 9)"
    assert run(executor, parents).verdict is Verdict.runtime_error


def test_children_end_when_their_program_has_ended_well(executor):
    """The original ended only the process that it had started itself."""
    mark = f"left-{executor.isolation}-{os.getpid()}"
    result = run(
        executor,
        f"""
import subprocess
subprocess.Popen(['/bin/sleep', '1000', '{mark}'], start_new_session=True)
""",
    )
    assert result.verdict is Verdict.passed
    assert named_processes(mark) == []


def test_variables_of_the_caller_are_unknown_when_a_program_reads_its_own(executor, monkeypatch):
    monkeypatch.setenv("EVALUATION_SECRET", "sk-secret")
    fresh = Executor(replace(CONFIG, sandbox=executor.isolation))
    source = "import os\nassert 'EVALUATION_SECRET' not in os.environ, os.environ"
    assert run(fresh, source).verdict is Verdict.passed


def test_folder_is_fresh_when_the_program_before_left_something(executor):
    assert run(executor, "open('note', 'w').write('x')").verdict is Verdict.passed
    source = "import os\nassert os.listdir() == ['main.py'] and not os.path.exists('/tmp/note')"
    assert run(executor, source).verdict is Verdict.passed


def test_more_memory_than_the_machine_holds_is_not_used_when_many_run_at_once(executor):
    works = [
        Work(task_id=f"Test/{number}", language="python", source="x = bytearray(10 << 30)")
        for number in range(6)
    ]
    verdicts = {result.task_id: result.verdict for result in executor.run_all(works)}
    assert verdicts == {f"Test/{number}": Verdict.memory for number in range(6)}
