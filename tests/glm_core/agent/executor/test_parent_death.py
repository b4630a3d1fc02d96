"""Nothing is left when the process that uses a code interpreter is killed."""

import os
import select
import signal
import subprocess
import sys

import pytest

from glm_core.agent.executor import SandboxUnavailable
from glm_core.agent.executor.choose import executor

PROGRAM = """
import sys
from glm_core.agent.executor import executor
running = executor(sys.argv[1])
running.run('''
import subprocess
subprocess.Popen(['setsid', 'sleep', '600'])
''')
folder = running.run('import os; os.getcwd()').text
print(running._cell._process.pid, folder, flush=True)
sys.stdin.read()
"""


def children(pid):
    """Returns a process and all below it, from /proc."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as file:
            for child in file.read().split():
                found += children(int(child))
    return found


@pytest.mark.parametrize("kind", ["bubblewrap", "unshare", "unsafe-local"])
def test_no_process_and_no_folder_is_left_when_the_caller_is_killed(kind, tmp_path):
    try:
        executor(kind)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as caller:
        first = int(caller.stdout.readline().split()[0])
        watched = [os.pidfd_open(pid) for pid in children(first)]
        assert len(watched) >= 3  # the warden, the kernel, what it started
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        for process in watched:
            assert select.select([process], [], [], 10)[0], "a process outlives its caller"
            os.close(process)
    assert list(tmp_path.iterdir()) == []
