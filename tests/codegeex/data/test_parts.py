import os
import signal
import subprocess
import sys
import time

import pytest

from codegeex.data.parts import Part, run_parts, write_whole


def write(work, done):
    if work == "stop":
        raise ValueError("told to stop")
    if work == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    write_whole(done, work)


def parts(folder, *works):
    return [Part(work, folder / f"{i}.json", 1.0) for i, work in enumerate(works)]


@pytest.mark.parametrize("workers", [1, 2])
def test_only_what_is_missing_is_done_when_called_again(tmp_path, workers):
    todo = parts(tmp_path, "a", "b", "c")
    write_whole(todo[1].done, "kept")
    assert run_parts("x", write, todo, workers) == 2.0
    assert [part.done.read_text() for part in todo] == ['"a"\n', '"kept"\n', '"c"\n']
    assert run_parts("x", write, todo, workers) == 0.0


def test_error_is_raised_when_a_process_has_one(tmp_path):
    with pytest.raises(ValueError, match="told to stop"):
        run_parts("x", write, parts(tmp_path, "a", "stop", "b"), 2)


def test_remedy_is_told_when_a_process_is_killed(tmp_path):
    with pytest.raises(OSError, match="ended from outside.* --workers 1 needs less memory"):
        run_parts("x", write, parts(tmp_path, "a", "die", "b"), 2)


PROGRAM = """
import sys, time
from pathlib import Path
from codegeex.data.parts import Part, run_parts

def work(number, done):
    Path(f"{done}.begun").touch()
    time.sleep(60)

run_parts("x", work, [Part(i, Path(sys.argv[1]) / str(i), 1) for i in range(2)], 2)
"""


def test_processes_end_when_the_parent_is_killed(tmp_path):
    session = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], start_new_session=True
    )
    wait_for(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
    session.kill()
    session.wait()
    wait_for(lambda: not group_lives(session.pid))


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def group_lives(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
