"""A running enclosure: its first process, the socket to it, and its two folders."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from typing import IO, Any

from glm_core.agent.executor.enclosure import Enclosure
from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import WORK_FOLDER, SandboxUnavailable
from glm_core.agent.executor.view import FOLDER_MODES, INSIDE_TARGET, RUN_FOLDER, environment

_PACKET = 1 << 16
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Cell:
    """Starts an enclosure's first process, which ends everything in it when this one ends.

    Args:
        enclosure: how it is started.
        limits: what it enforces.

    Raises:
        SandboxUnavailable: it does not start; the message holds the reason of the system.
    """

    def __init__(self, enclosure: Enclosure, limits: ExecutorLimits) -> None:
        self._sending = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints = tempfile.TemporaryFile()
        try:
            with theirs, complaints, enclosure.launch(limits) as launch:
                self._process = subprocess.Popen(
                    launch.command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    env={"PATH": _PATH},
                    pass_fds=launch.descriptors,
                    start_new_session=True,  # no terminal, and no Ctrl-C of the caller's
                )
                theirs.close()
                config = _config(limits) | launch.config
                self.work_fd, self.run_fd = self._greet(enclosure, config, complaints, limits)
                self.work_folder: str = config["work_folder"]
                self.run_folder: str = config["run_folder"]
        except BaseException:
            self._control.close()
            raise

    def _greet(
        self,
        enclosure: Enclosure,
        config: dict[str, Any],
        complaints: IO[bytes],
        limits: ExecutorLimits,
    ) -> list[int]:
        """Sends the configuration; returns descriptors of the work and run folders."""
        parent = os.pidfd_open(os.getpid())
        self._control.settimeout(limits.start_s)
        try:
            socket.send_fds(self._control, [json.dumps(config).encode()], [parent])
            packet, descriptors, _, _ = socket.recv_fds(self._control, _PACKET, 2)
        except OSError as error:
            packet, descriptors = json.dumps({"reason": str(error)}).encode(), []
        finally:
            os.close(parent)
        if len(descriptors) == 2:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            return descriptors
        self._control.close()
        self._wait_for_end()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else json.loads(packet or b"{}").get("reason", "it ended")
        raise SandboxUnavailable(f"{enclosure.name} does not work here: {reason}")

    def fileno(self) -> int:
        """Readable when an event has come."""
        return self._control.fileno()

    def send(self, do: str, *, descriptors: tuple[int, ...] = (), **values: Any) -> None:
        """Gives the first process an order (inside/warden.py); a dead one ignores it.

        Args:
            do: which order.
            descriptors: files that go along.
            values: what else the order says.
        """
        packet = json.dumps({"do": do, **values}).encode()
        try:
            with self._sending:
                socket.send_fds(self._control, [packet], descriptors)
        except OSError:
            return  # the next event says that it has ended

    def has_event(self, wait_s: float) -> bool:
        """Waits at most so many seconds for an event."""
        poll = select.poll()  # select(2) refuses descriptors above 1023
        poll.register(self._control, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def event(self) -> dict[str, Any]:
        """Waits for an event; `{"event": "gone"}` when the first process has ended or is stuck."""
        try:
            packet = self._control.recv(_PACKET)
        except OSError:
            packet = b""
        return json.loads(packet) if packet else {"event": "gone"}

    def close(self) -> None:
        """Ends every process of the enclosure; its folders in memory go with the last one."""
        self._control.close()
        self._wait_for_end()
        os.close(self.work_fd)
        os.close(self.run_fd)

    def hang_up(self) -> None:
        """Lets the first process end everything, and wakes who waits for an event."""
        try:
            self._control.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was closed before

    def _wait_for_end(self) -> None:
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # takes the first process along
            self._process.wait()


def _config(limits: ExecutorLimits) -> dict[str, Any]:
    """Returns what a sandbox's first process is told, where the enclosure says nothing else."""
    return {
        "limits": asdict(limits),
        "sandboxed": True,
        "build_mounts": False,
        "uid": None,
        "folders": FOLDER_MODES,
        "work_folder": WORK_FOLDER,
        "run_folder": RUN_FOLDER,
        "kernel_command": [sys.executable, "-I", "-B", f"{INSIDE_TARGET}/kernel_main.py"],
        "environment": environment(WORK_FOLDER, "/tmp"),
        "watch_ms": 100,
    }
