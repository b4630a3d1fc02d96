"""Code that wants out of the sandbox, and how far it gets."""

import os
import socket
import tempfile
from pathlib import Path

import pytest


def run(sandbox, code, timeout_s=10.0):
    """Runs code; fails where it raised what the test does not expect."""
    result = sandbox.run(code, timeout_s)
    assert result.error is None, result.error
    return result.stdout.strip()


ALIVE = """
import os
def state(pid):
    try:
        return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return 'X'
print(sum(state(pid) not in 'ZX' for pid in os.listdir('/proc') if pid.isdigit()))
"""
"""Prints how many processes the sandbox sees: the warden and the kernel when all is quiet."""


def test_home_folder_cannot_be_read_when_code_knows_its_path(sandbox):
    with tempfile.NamedTemporaryFile(dir=Path.home(), prefix=".glm-test-") as secret:
        secret.write(b"private")
        secret.flush()
        result = sandbox.run(f"open({secret.name!r}).read()")
        seen = run(sandbox, f"import os; print(os.path.lexists({secret.name!r}))")
    assert result.error.name == "FileNotFoundError"
    assert seen == "False"


def test_files_of_the_machine_are_missing_when_they_are_no_part_of_python(sandbox):
    of_the_first_process = str(Path("/proc/1/root") / "etc/shadow")
    paths = [__file__, "/etc/shadow", "/etc/hosts", "/sys", "/var", of_the_first_process]
    code = f"import os; print([path for path in {paths!r} if os.path.exists(path)])"
    assert run(sandbox, code) == "[]"


def test_environment_holds_no_secret_when_the_caller_has_one(sandbox):
    code = """
import glob, os
found = [name for name in os.environ if 'GLM' in name]
for path in glob.glob('/proc/[0-9]*/environ'):
    try:
        found += [path] if b'sk-secret' in open(path, 'rb').read() else []
    except PermissionError:
        pass
print(found)
"""
    assert run(sandbox, code) == "[]"


def test_socket_does_not_open_when_it_is_no_unix_socket(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        result = sandbox.run(f"import socket; socket.create_connection({address!r}, timeout=2)")
        code = """
import socket
for family in range(64):
    try:
        socket.socket(family).close()
        print(family)
    except OSError:
        pass
"""
        assert run(sandbox, code) == str(int(socket.AF_UNIX))
    assert result.error.name == "PermissionError"


def test_network_has_no_way_out_when_the_filter_is_left_aside(sandbox):
    """The namespace alone: its only interface is the loopback of its own."""
    code = "print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])"
    assert run(sandbox, code) == "['lo']"


def test_abstract_socket_of_the_machine_is_not_there_when_it_is_named(sandbox):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0glm-test-{os.getpid()}")
        server.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0glm-test-{os.getpid()}')"
        assert sandbox.run(code).error.name == "ConnectionRefusedError"


def test_nothing_is_written_when_the_folder_is_not_the_sessions(sandbox):
    code = """
import os, sys
written = []
large = ('/proc', '/usr/', sys.prefix + '/', sys.base_prefix + '/')
for folder, folders, _ in os.walk('/'):
    folders[:] = [name for name in folders if not os.path.join(folder, name).startswith(large)]
    try:
        open(folder + '/x', 'w').close()
        os.unlink(folder + '/x')
        written.append(folder)
    except OSError:
        pass
print([path for path in sorted(written) if not path.startswith('/tmp/')])
"""
    assert run(sandbox, code) == "['/mnt/data', '/run/kernel', '/tmp']"


def test_process_has_no_privileges_when_it_looks_at_itself(sandbox):
    code = """
fields = dict(line.split(':', 1) for line in open('/proc/self/status'))
print([int(fields[name], 16) for name in ('CapPrm', 'CapEff', 'CapBnd', 'CapInh', 'CapAmb')])
print(fields['NoNewPrivs'].strip(), fields['Seccomp'].strip(), fields['TracerPid'].strip())
"""
    assert run(sandbox, code).splitlines() == ["[0, 0, 0, 0, 0]", "1 2 0"]


@pytest.mark.parametrize(
    "call",
    [
        "libc.unshare(0x10000000)",
        "libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)",
        "libc.umount2(b'/usr', 2)",
        "libc.ptrace(16, 1, 0, 0)",
        "libc.setns(0, 0)",
        "libc.chroot(b'/tmp')",
        "libc.memfd_create(b'x', 0)",
        "libc.shmget(0, 4096, 0o1777)",
        "libc.personality(0x40000)",
        "libc.ioctl(0, 0x5412, b'x')",
    ],
)
def test_system_call_is_refused_when_it_would_open_a_way_out(sandbox, call):
    code = f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); result = {call}\n"
    code += "print(result, ctypes.get_errno())"
    assert run(sandbox, code) == "-1 1"


def test_first_process_lives_when_code_attacks_it(sandbox):
    code = """
import os, signal
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
    try:
        os.kill(1, number)
    except PermissionError:
        pass
try:
    open('/proc/1/mem', 'rb')
    print('open')
except PermissionError:
    print('closed')
"""
    assert run(sandbox, code) == "closed"
    assert run(sandbox, ALIVE) == "2"


def test_descriptors_of_the_warden_are_closed_when_code_looks_for_them(sandbox):
    code = """
import os
links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')
         if os.path.lexists(f'/proc/self/fd/{fd}')]
print([link for link in links if 'pidfd' in link or link.startswith(('/mnt', '/run', '/tmp'))])
"""
    assert run(sandbox, code) == "[]"


def test_fork_stops_when_the_limit_of_processes_is_reached(sandbox):
    code = """
import os, signal
children = []
try:
    while True:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except BlockingIOError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(len(children))
"""
    count = int(run(sandbox, code))
    assert 5 < count < sandbox.limits.processes


def test_fork_bomb_ends_when_its_time_is_over(sandbox):
    bomb = """
import subprocess, sys
subprocess.run([sys.executable, '-S', '-c', '''
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
'''], start_new_session=True)
"""
    result = sandbox.run(bomb, timeout_s=0.5)
    assert result.timed_out or "processor time" in result.kernel_died
    assert result.duration_s < 10
    assert run(sandbox, ALIVE) == "2"


def test_disk_is_full_when_code_fills_the_work_folder(sandbox):
    code = """
import os
written = 0
try:
    for number in range(100):
        with open(f'{number}', 'wb') as file:
            written += file.write(bytes(1 << 20))
except OSError as error:
    print(error.strerror)
for name in os.listdir('.'):
    os.unlink(name)
print(written >> 20)
"""
    assert run(sandbox, code).splitlines() == ["No space left on device", "8"]


@pytest.mark.parametrize("folder", ["/mnt/data", "/tmp", "/run/kernel", "/dev/shm"])
def test_number_of_files_is_limited_when_they_are_empty(sandbox, folder):
    code = f"""
import os, tempfile
with tempfile.TemporaryDirectory(dir={folder!r}) as inner:
    try:
        for number in range(10_000):
            open(f'{{inner}}/{{number}}', 'w').close()
    except OSError as error:
        print(error.strerror, number <= 200)
"""
    assert run(sandbox, code) == "No space left on device True"


def test_file_stops_growing_when_it_reaches_its_limit(sandbox):
    result = sandbox.run("open('/tmp/big', 'wb').truncate(5 << 20)")
    assert result.error.name == "OSError"
    assert "File too large" in result.error.value


def test_allocation_fails_when_it_is_beyond_the_limit(sandbox):
    assert sandbox.run("bytearray(1 << 30)").error.name == "MemoryError"


def test_run_is_interrupted_when_its_time_is_over(sandbox):
    run(sandbox, "kept = 7")
    result = sandbox.run("import time; time.sleep(60)", timeout_s=0.1)
    assert result.timed_out
    assert result.error.name == "KeyboardInterrupt"
    assert run(sandbox, "print(kept)") == "7"


def test_daemon_does_not_outlive_the_timeout_when_it_left_the_process_group(sandbox):
    code = """
import subprocess, time
subprocess.Popen('setsid nohup sleep 600 &', shell=True)
time.sleep(60)
"""
    result = sandbox.run(code, timeout_s=0.3)
    assert result.timed_out and not result.kernel_died
    assert run(sandbox, ALIVE) == "2"


def test_kernel_is_killed_when_it_ignores_the_interrupt(sandbox):
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    result = sandbox.run(code, timeout_s=0.2)
    assert result.timed_out
    assert result.kernel_died == "it ran past 0.2 seconds and did not stop"
    assert result.error.name == "KernelDied"
    assert result.duration_s < 5
    again = sandbox.run("'kept' in globals()")
    assert (again.fresh_kernel, again.text) == (True, "False")
