"""The first process of a sandbox: it starts the kernel or a program, watches and ends it.

It speaks with the executor over a Unix socket (its standard input), one JSON object per packet, and
ends, with all that it started, when the executor closes the socket or dies.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any

from . import libc, mounts, privileges, processes

_LOG_CHARS = 2000
_PACKET = 1 << 16


class Warden:
    """Rules one sandbox.

    Args:
        control: packets from and to the executor.
        parent: pidfd of the executor's process.
        config: what cell.py sends.
    """

    def __init__(self, control: socket.socket, parent: int, config: dict[str, Any]) -> None:
        self._control = control
        self._parent = parent
        self._config = config
        self._limits: dict[str, Any] = config["limits"]
        self._child: int | None = None
        """The kernel, or the program of `run`."""
        self._child_end = -1  # readable when it has ended
        self._is_program = False
        self._log = -1  # what the kernel writes before it has channels of its own
        self._log_tail = b""
        self._cpu_before_s = 0.0
        self._peak_bytes = 0
        self._next_check = 0.0

    def serve(self) -> None:
        """Does as it is told until the executor is gone."""
        while True:
            readable = self._wait()
            if self._parent in readable:
                return
            if self._log in readable:
                self._read_log()
            if self._control.fileno() in readable:
                packet, descriptors, _, _ = socket.recv_fds(self._control, _PACKET, 2)
                if not packet:
                    return
                self._obey(json.loads(packet), descriptors)
            self._watch(self._child_end in readable)

    def _wait(self) -> set[int]:
        poll = select.poll()
        for descriptor in (self._control.fileno(), self._parent, self._log, self._child_end):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        interval_ms = None if self._child is None else self._config["watch_ms"]
        return {descriptor for descriptor, _ in poll.poll(interval_ms)}

    def _obey(self, order: dict[str, Any], descriptors: list[int]) -> None:
        do = order["do"]
        if do == "start":
            self._start(order["connection"])
        elif do == "run":
            self._run(order, descriptors)
        elif self._child is None:
            return  # it has just died; the executor is about to read so
        elif do == "begin":
            self._cpu_before_s = processes.usage(processes.others()).cpu_s
        elif do == "interrupt":
            self._interrupt(self._child)
        elif do == "sweep":
            if processes.kill_except(self._child):
                self._tell({"event": "swept"})
            else:
                self._end("it left processes that could not be stopped")
        elif do == "kill":
            self._end(order["why"])

    def _interrupt(self, kernel: int) -> None:
        try:
            os.killpg(kernel, signal.SIGINT)  # as Ctrl-C: to what the code started, too
        except ProcessLookupError:
            return  # it has not come so far as to lead a group

    def _start(self, connection: dict[str, Any]) -> None:
        """Starts a kernel that listens where `connection` says; nothing of an older one is left."""
        processes.kill_all()
        folder = self._config["run_folder"]
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        with open(self._connection_file(), "w") as out:
            json.dump(connection, out)
        self._log_tail = b""
        self._log, child_log = os.pipe()
        os.set_blocking(self._log, False)
        command = [*self._config["kernel_command"], self._connection_file()]
        command.append(str(self._limits["output_chars"]))
        self._fork(command, self._config["environment"], (child_log, child_log))
        os.close(child_log)
        # Said only now: the executor must not take the old kernel's sockets for the new one's.
        self._tell({"event": "started"})

    def _connection_file(self) -> str:
        return os.path.join(self._config["run_folder"], "connection.json")

    def _run(self, order: dict[str, Any], outputs: list[int]) -> None:
        """Starts a program whose output the executor reads; nothing of an older one is left."""
        processes.kill_all()
        self._limits, self._is_program = order["limits"], True
        environment = self._config["environment"] | order["environment"]
        self._fork(order["command"], environment, (outputs[0], outputs[1]))
        for output in outputs:
            os.close(output)

    def _fork(
        self, command: list[str], environment: dict[str, str], outputs: tuple[int, int]
    ) -> None:
        self._cpu_before_s = processes.usage([]).cpu_s
        self._peak_bytes = 0
        self._child = os.fork()
        if self._child == 0:
            self._become(command, environment, outputs)
        self._child_end = os.pidfd_open(self._child)

    def _become(
        self, command: list[str], environment: dict[str, str], outputs: tuple[int, int]
    ) -> None:
        """Turns this forked process into the kernel or a program; does not return."""
        try:
            os.setsid()
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would it
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            for target, source in enumerate((null, *outputs)):
                os.dup2(source, target)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # nothing of the warden's goes along
            os.chdir(self._config["work_folder"])
            if self._config["sandboxed"]:
                privileges.lower_child(self._config["uid"], self._limits)
            else:
                libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
                privileges.set_limits(self._limits)
            os.execve(command[0], command, environment)
        except OSError as error:
            os.write(2, _explained(error).encode())
        finally:
            os._exit(126)

    def _watch(self, has_ended: bool) -> None:
        """Ends the child when it is done or uses more than it may."""
        began = time.monotonic()
        if self._child is None or (began < self._next_check and not has_ended):
            return
        pid, status, used = os.wait4(self._child, os.WNOHANG)
        if pid:
            self._peak_bytes = max(self._peak_bytes, used.ru_maxrss * 1024)
            code = os.waitstatus_to_exitcode(status)
            self._end(_ending(code), code=code)
            return
        pids = processes.others()
        excess = self._excess(pids)
        if excess:
            self._end(_exceeded(excess, self._limits[excess]), excess=excess)
            return
        processes.reap(self._child)
        now = time.monotonic()
        self._next_check = now + max(now - began, self._config["watch_ms"] / 2000)

    def _excess(self, pids: list[int]) -> str:
        """Returns the name of a limit that the processes exceed, or an empty string."""
        used, limits = processes.usage(pids), self._limits
        self._peak_bytes = max(self._peak_bytes, used.resident_bytes)
        if used.threads > limits["processes"]:
            return "processes"
        if used.cpu_s - self._cpu_before_s > limits["cpu_s"]:
            return "cpu_s"
        memory = limits["memory_bytes"]
        if used.resident_bytes > memory and processes.shared_once_bytes(pids) > memory:
            return "memory_bytes"
        return ""

    def _end(self, reason: str, code: int | None = None, excess: str = "") -> None:
        """Ends what is left of the child, and tells.

        Args:
            reason: why it ended, for a person.
            code: exit code or negated signal, where it ended by itself.
            excess: name of the limit that it exceeded.
        """
        processes.kill_all()
        os.close(self._child_end)
        self._child, self._child_end = None, -1
        if self._is_program:
            self._is_program = False
            cpu_s = processes.usage([]).cpu_s - self._cpu_before_s
            ended = {"code": code, "excess": excess, "cpu_s": cpu_s}
            self._tell({"event": "ended", **ended, "peak_bytes": self._peak_bytes})
            return
        self._read_log()
        os.close(self._log)
        self._log = -1
        log = self._log_tail.decode(errors="replace").strip()
        self._tell({"event": "died", "reason": reason, "log": log})

    def _tell(self, event: dict[str, Any]) -> None:
        self._control.send(json.dumps(event).encode())

    def _read_log(self) -> None:
        try:
            piece = os.read(self._log, _PACKET)
        except BlockingIOError:
            return
        self._log_tail = (self._log_tail + piece)[-_LOG_CHARS:]


def _explained(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"{error}; the code runs as another user, who must be able to read this Python"
    return str(error)


def _ending(code: int) -> str:
    """Says how a process ended, from its exit code or the negated number of its signal."""
    if code >= 0:
        return f"it exited with status {code}"
    return f"it was ended by {signal.Signals(-code).name}"


def _exceeded(limit: str, most: float) -> str:
    """Says which limit was exceeded."""
    if limit == "processes":
        return f"more than {most} processes and threads"
    if limit == "cpu_s":
        return f"more than {most:g} seconds of processor time"
    return f"more than {most / 2**20:.0f} MiB of memory"


def _prepare(config: dict[str, Any]) -> list[int]:
    """Makes the folders and gives up privileges; returns descriptors of the two folders."""
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")  # the machine short of memory ends this before anything of its own
    if config["sandboxed"]:
        if config["build_mounts"]:
            mounts.build(config["mounts"])
            socket.sethostname("sandbox")
        else:
            mounts.limit_files(config["mounts"])
    else:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    for folder, mode in config["folders"].items():
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, mode)
    if config["sandboxed"]:
        privileges.lower_warden()
    flags = os.O_RDONLY | os.O_DIRECTORY
    return [os.open(config[name], flags) for name in ("work_folder", "run_folder")]


def main() -> None:
    """Runs on standard input until the executor ends."""
    os.umask(0o022)
    control = socket.socket(fileno=0)
    packet, descriptors, _, _ = socket.recv_fds(control, _PACKET, 1)
    if not packet:
        return
    config = json.loads(packet)
    try:
        folders = _prepare(config)
    except OSError as error:
        control.send(json.dumps({"event": "failed", "reason": str(error)}).encode())
        sys.exit(1)
    socket.send_fds(control, [json.dumps({"event": "ready"}).encode()], folders)
    try:
        Warden(control, descriptors[0], config).serve()
    finally:
        processes.kill_all()
        if not config["sandboxed"]:
            shutil.rmtree(config["root"], ignore_errors=True)
