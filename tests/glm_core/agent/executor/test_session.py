"""One session: outputs, limits of what is kept, files, deaths, other threads."""

import threading

import pytest

from glm_core.agent.executor import ExecutorError, ExecutorLimits, executor, observation_text


def test_variables_stay_when_runs_follow_each_other(interpreter):
    interpreter.run("x = 20")
    result = interpreter.run("x + 1")
    assert result.text == "21"
    assert (result.error, result.truncated, result.timed_out, result.kernel_died) == (
        None,
        False,
        False,
        "",
    )


def test_output_keeps_its_order_when_streams_and_values_alternate(interpreter):
    code = """
import sys
for number in range(2):
    print('out', number)
    print('err', number, file=sys.stderr)
display('shown')
print('end')
'value'
"""
    result = interpreter.run(code)
    assert [(output.kind, output.text) for output in result.outputs] == [
        ("stdout", "out 0\n"),
        ("stderr", "err 0\n"),
        ("stdout", "out 1\n"),
        ("stderr", "err 1\n"),
        ("result", "'shown'"),
        ("stdout", "end\n"),
        ("result", "'value'"),
    ]
    assert result.stdout == "out 0\nout 1\nend\n"


def test_output_of_children_is_kept_when_they_fork_or_run_programs(interpreter):
    code = """
import os, subprocess
subprocess.run(['echo', 'program'], check=True)
if os.fork() == 0:
    print('child')
    os._exit(0)
os.wait()
"""
    assert sorted(interpreter.run(code).stdout.split()) == ["child", "program"]


def test_error_has_name_value_and_plain_traceback_when_code_raises(interpreter):
    error = interpreter.run("print('before')\n1 / 0").error
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in error.traceback
    assert "\x1b" not in error.traceback


def test_syntax_error_is_a_result_when_code_does_not_parse(interpreter):
    assert interpreter.run("1 +").error.name == "SyntaxError"


def test_figures_are_pictures_when_matplotlib_draws_them(interpreter):
    code = """
import matplotlib.pyplot as plt
print('first')
plt.plot([1, 2]); plt.show()
print('second')
plt.plot([2, 1]); plt.show()
"""
    result = interpreter.run(code)
    assert result.error is None
    assert [output.kind for output in result.outputs] == ["stdout", "image", "stdout", "image"]
    assert [image.mime for image in result.images] == ["image/png"] * 2
    assert all(image.data.startswith(b"\x89PNG\r\n\x1a\n") for image in result.images)
    assert observation_text(result) == "first\n[Image]\nsecond\n[Image]"


def test_picture_too_many_is_left_out_when_the_limit_is_three(interpreter):
    code = """
from IPython.display import SVG
for _ in range(5):
    display(SVG('<svg xmlns="http://www.w3.org/2000/svg"/>'))
"""
    result = interpreter.run(code)
    assert len(result.images) == 3
    assert result.truncated


def test_output_is_cut_when_it_is_longer_than_what_is_kept(interpreter):
    result = interpreter.run("print('a' * 50_000_000)")
    assert result.stdout == "a" * 10_000
    assert result.truncated
    assert observation_text(result, limit=3) == "aaa [TRUNCATED]"


def test_endless_output_ends_when_time_is_over(interpreter):
    result = interpreter.run("while True: print('a' * 1000)", timeout_s=0.3)
    assert result.timed_out and result.truncated
    assert len(result.stdout) == 10_000


def test_message_is_dropped_when_it_is_larger_than_what_is_read(interpreter):
    result = interpreter.run("'a' * 10_000_000")
    assert (result.text, result.truncated, result.error) == ("", True, None)
    assert interpreter.run("print('next')\n5").text == "5"


def test_connection_stays_with_the_kernel_when_code_replaces_its_socket(interpreter):
    code = """
import os
os.unlink('/run/kernel/s-2')
os.symlink('/run/elsewhere', '/run/kernel/s-2')
'a' * 10_000_000
"""
    interpreter.run(code)
    assert interpreter.run("6").text == "6"


def test_input_is_refused_when_code_asks_for_it(interpreter):
    assert interpreter.run("input()").error.name == "StdinNotImplementedError"


def test_files_come_and_go_when_both_sides_use_the_work_folder(interpreter):
    interpreter.write_file("in/data.csv", b"1,2\n")
    code = """
with open('/mnt/data/in/data.csv', 'a') as file:
    file.write('3,4')
open('out.txt', 'w').write('seen')
"""
    assert interpreter.run(code).error is None
    assert interpreter.read_file("in/data.csv") == b"1,2\n3,4"
    assert [(file.name, file.size) for file in interpreter.files()] == [
        ("in/data.csv", 7),
        ("out.txt", 4),
    ]
    interpreter.write_file("out.txt", b"x")
    assert interpreter.run("open('out.txt').read()").text == "'x'"


def test_file_is_refused_when_code_made_it_a_link_out_of_the_folder(interpreter):
    code = """
import os
for link, target in {'link': '/etc/passwd', 'folder': '/etc'}.items():
    if not os.path.lexists(link):
        os.symlink(target, link)
"""
    assert interpreter.run(code).error is None
    for name in ("link", "folder/passwd"):
        with pytest.raises(ValueError, match="passes through a link"):
            interpreter.read_file(name)
        with pytest.raises(ValueError, match="passes through a link"):
            interpreter.write_file(name, b"")
    assert "link" not in [file.name for file in interpreter.files()]


def test_upload_is_refused_when_the_disk_is_full(interpreter):
    names = [f"big{number}" for number in range(3)]
    with pytest.raises(ValueError, match="does not fit into the work folder any more"):
        for name in names:
            interpreter.write_file(name, bytes(4 * 1024 * 1024))
    interpreter.run(f"import os\nfor name in {names!r}: os.path.exists(name) and os.unlink(name)")


def test_kernel_is_fresh_and_files_stay_when_the_one_before_died(interpreter):
    interpreter.run("x = 1; open('stays', 'w').write('y')")
    result = interpreter.run("print('last words', flush=True); import os; os._exit(3)")
    assert result.kernel_died == "it exited with status 3"
    assert result.error.name == "KernelDied"
    assert "variables are lost" in observation_text(result)
    again = interpreter.run("'x' in globals()")
    assert (again.text, again.fresh_kernel, again.kernel_died) == ("False", True, "")
    assert observation_text(again).startswith("[new interpreter")
    assert interpreter.read_file("stays") == b"y"
    assert not interpreter.run("1").fresh_kernel


def test_run_finds_a_new_kernel_when_the_old_one_died_after_its_run(interpreter):
    code = """
import os, threading
threading.Timer(0.05, os._exit, [4]).start()
"""
    assert not interpreter.run(code).kernel_died
    wait_for_death(interpreter)
    result = interpreter.run("'os' in globals()")
    assert (result.text, result.fresh_kernel, result.kernel_died) == ("False", True, "")


def wait_for_death(executor):
    """Waits until the first process has said that the kernel ended."""
    assert executor._cell.has_event(10.0)


def test_kernel_is_killed_when_shared_memory_escapes_the_allocator(interpreter):
    code = """
import mmap
memory = mmap.mmap(-1, 600 << 20)
for page in range(0, len(memory), 4096):
    memory[page] = 1
import time; time.sleep(60)
"""
    assert interpreter.run(code).kernel_died == "more than 400 MiB of memory"


def test_kernel_is_killed_when_its_children_use_too_much_processor_time(sandbox_kind):
    code = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        while True: pass
time.sleep(60)
"""
    with executor(sandbox_kind, ExecutorLimits(cpu_s=0.3)) as running:
        assert running.run(code).kernel_died == "more than 0.3 seconds of processor time"


def test_run_stops_when_another_thread_interrupts(interpreter):
    interpreter.start()
    timer = threading.Timer(0.2, interpreter.interrupt)
    timer.start()
    result = interpreter.run("while True: pass", timeout_s=10)
    timer.join()
    assert result.error.name == "KeyboardInterrupt"
    assert not result.timed_out


def test_run_ends_when_another_thread_closes_what_a_third_has_started(sandbox_kind):
    running = executor(sandbox_kind)
    starter = threading.Thread(target=running.start)
    starter.start()
    starter.join()  # the sandbox outlives the thread that made it
    assert running.run("1").text == "1"
    timer = threading.Timer(0.2, running.close)
    timer.start()
    result = running.run("while True: pass", timeout_s=10)
    timer.join()
    assert "its sandbox ended" in result.kernel_died
    with pytest.raises(ExecutorError, match="is closed: make a new one"):
        running.run("1")
    running.close()


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_run_is_refused_when_its_time_is_not_positive(interpreter, seconds):
    with pytest.raises(ValueError, match="a run needs a time above zero seconds"):
        interpreter.run("1", timeout_s=seconds)
