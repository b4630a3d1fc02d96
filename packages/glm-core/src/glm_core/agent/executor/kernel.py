"""A Jupyter kernel in a cell, spoken with over Unix sockets; it is not trusted."""

from __future__ import annotations

import os
import secrets
import stat
import time
from typing import Any

from glm_core.agent.executor.cell import Cell
from glm_core.agent.executor.collect import Collector
from glm_core.agent.executor.limits import MIB, ExecutorLimits
from glm_core.agent.executor.protocol import ExecutorError
from glm_core.extras import require

_PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
_SHORT_S = 0.005
_LAST_WORDS_S = 1.0
"""How long a finished run's last messages may take; they are lost when they were too large."""
_BATCH = 64
"""Messages that are read before the clock is looked at again."""

_BAD_MESSAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class KernelDied(Exception):
    """The kernel, or its whole cell, has ended; the message says why."""

    def __init__(self, reason: str, log: str = "", cell_gone: bool = False) -> None:
        super().__init__(reason)
        self.log = log
        self.cell_gone = cell_gone


class Kernel:
    """One kernel, from its start to its death.

    Args:
        cell: where it runs.
        limits: time to start, and sizes of messages.

    Raises:
        ExecutorError: it does not start in time.
        KernelDied: it ended while it started.
    """

    def __init__(self, cell: Cell, limits: ExecutorLimits) -> None:
        self._zmq: Any = require("zmq", extra="agent", package="pyzmq")
        session_module: Any = require("jupyter_client.session", extra="agent")
        key = secrets.token_hex(32)
        self._cell = cell
        self._limits = limits
        self._session = session_module.Session(key=key.encode())
        self._context = self._zmq.Context()
        self._paths: list[int] = []
        try:
            cell.send("start", connection=_connection(cell.run_folder, key))
            self._await_start()
            self._connect(time.monotonic() + limits.start_s)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raises KernelDied when the kernel ended since the last run."""
        if self._cell.has_event(0.0):
            self._read_event()

    def close(self) -> None:
        """Closes the sockets; the process is the cell's affair."""
        self._context.destroy(linger=0)
        for descriptor in self._paths:
            os.close(descriptor)
        self._paths.clear()

    def execute(self, code: str, timeout_s: float, collector: Collector) -> bool:
        """Runs code until it ends or is stopped.

        Args:
            code: one or more statements.
            timeout_s: seconds; then the code is interrupted, and killed if that does not help.
            collector: takes the messages.

        Returns:
            Whether the code was stopped because its time was over.

        Raises:
            KernelDied: the kernel ended.
        """
        self._cell.send("begin")
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        identity = self._ask("execute_request", content | {"user_expressions": {}})
        run = _Run(identity, collector, time.monotonic() + timeout_s, self._limits.grace_s)
        while not run.is_over:
            wait_s = max(run.deadline - time.monotonic(), 0.0)
            if not self._receive(run, wait_s) or time.monotonic() >= run.deadline:
                self._out_of_time(run, timeout_s)
        if run.timed_out:
            self._cell.send("sweep")  # what the code started does not outlive its time either
            self._read_event()
        if run.was_cut:
            collector.truncated = True
            self._listen(time.monotonic() + self._limits.start_s)
        return run.timed_out

    def _out_of_time(self, run: _Run, timeout_s: float) -> None:
        if run.has_reply:
            run.collector.truncated = True
            run.is_idle = True
        elif not run.timed_out:
            run.timed_out = True
            run.deadline = time.monotonic() + run.grace_s
            self._cell.send("interrupt")
        else:
            run.deadline = time.monotonic() + self._limits.start_s  # the warden always answers
            self._cell.send("kill", why=f"it ran past {timeout_s:g} seconds and did not stop")

    def _receive(self, run: _Run, wait_s: float) -> bool:
        """Waits for messages and takes them; returns whether there were any."""
        ready = dict(self._poller.poll(wait_s * 1000))
        if self._iopub in ready:
            for kind, parent, content in self._messages(self._iopub):
                run.take(kind, parent, content)
        if self._monitor in ready:
            self._reconnect()
            run.cut()
        if self._shell in ready:
            for _, parent, _ in self._messages(self._shell):
                run.reply(parent)
        if self._cell.fileno() in ready:
            self._read_event()
        return bool(ready)

    def _messages(self, socket: Any) -> list[tuple[str, str, dict[str, Any]]]:
        """Reads what has come: type, the request's id, content; malformed ones are dropped."""
        found = []
        for _ in range(_BATCH):
            try:
                parts = socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.Again:
                break
            try:
                _, frames = self._session.feed_identities(parts)
                message = self._session.deserialize(frames)
                parent = message["parent_header"].get("msg_id", "")
                found.append((message["header"]["msg_type"], parent, message["content"]))
            except _BAD_MESSAGE:
                continue
        return found

    def _await_start(self) -> None:
        """Waits for the warden to say so; what it says before is about an older kernel."""
        while (event := self._cell.event()["event"]) != "started":
            if event == "gone":
                raise KernelDied("its sandbox ended", cell_gone=True)

    def _read_event(self) -> None:
        """Reads what the cell says. Raises: KernelDied."""
        event = self._cell.event()
        if event["event"] == "died":
            raise KernelDied(event["reason"], event["log"])
        if event["event"] == "gone":
            raise KernelDied("its sandbox ended, and the files of its work folder", cell_gone=True)

    def _connect(self, deadline: float) -> None:
        """Connects to the sockets when they are there, and waits until both are in use."""
        zmq = self._zmq
        self._shell = self._socket(zmq.DEALER, "shell", deadline)
        self._iopub = self._socket(zmq.SUB, "iopub", deadline)
        self._iopub.setsockopt(zmq.SUBSCRIBE, b"")
        self._monitor = self._iopub.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        for source in (self._shell, self._iopub, self._monitor, self._cell.fileno()):
            self._poller.register(source, zmq.POLLIN)
        self._listen(deadline)

    def _reconnect(self) -> None:
        """Connects again: a message too large to be read has ended the connection."""
        self._monitor.recv_multipart()
        address = self._iopub.getsockopt_string(self._zmq.LAST_ENDPOINT)
        self._iopub.disconnect(address)
        self._iopub.connect(address)

    def _listen(self, deadline: float) -> None:
        """Asks until answers come on both channels: before that, output would be lost."""
        heard: set[str] = set()
        while heard != {"shell", "iopub"}:
            self._check_start(deadline)
            self._ask("kernel_info_request", {})
            ready = dict(self._poller.poll(50))
            if self._cell.fileno() in ready:
                self._read_event()
            for name, socket in (("shell", self._shell), ("iopub", self._iopub)):
                if socket in ready and self._messages(socket):
                    heard.add(name)

    def _socket(self, kind: int, name: str, deadline: float) -> Any:
        """Returns a socket that is connected to a file of the run folder.

        The file's own descriptor is the address: the code inside may replace the file by a link,
        but never make this process connect to something else of the machine.
        """
        descriptor = self._socket_file(f"s-{_PORTS[name]}", deadline)
        self._paths.append(descriptor)
        socket = self._context.socket(kind)
        # One message holds at most a picture, or text of which each character takes six bytes.
        largest = 2 * self._limits.image_bytes + 8 * self._limits.output_chars + MIB
        socket.setsockopt(self._zmq.MAXMSGSIZE, largest)
        socket.setsockopt(self._zmq.RCVHWM, 16)
        socket.setsockopt(self._zmq.RECONNECT_IVL, 10)
        socket.setsockopt(self._zmq.LINGER, 0)
        socket.connect(f"ipc:///proc/self/fd/{descriptor}")
        return socket

    def _socket_file(self, name: str, deadline: float) -> int:
        while True:
            try:
                flags = os.O_PATH | os.O_NOFOLLOW
                descriptor = os.open(name, flags, dir_fd=self._cell.run_fd)
            except FileNotFoundError:
                self._check_start(deadline)
                continue
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            raise ExecutorError(f"the kernel made {name} something else than a socket")

    def _check_start(self, deadline: float) -> None:
        """Waits a moment for bad news. Raises: KernelDied, ExecutorError."""
        if self._cell.has_event(_SHORT_S):
            self._read_event()
        if time.monotonic() > deadline:
            raise ExecutorError(
                f"the kernel did not start within start_s={self._limits.start_s:g} seconds"
            )

    def _ask(self, kind: str, content: dict[str, Any]) -> str:
        """Sends a request on the shell channel; returns its id."""
        message = self._session.send(self._shell, kind, content)
        return str(message["header"]["msg_id"])


class _Run:
    """How far one execution has come."""

    def __init__(
        self, identity: str, collector: Collector, deadline: float, grace_s: float
    ) -> None:
        self.identity = identity
        self.collector = collector
        self.deadline = deadline
        self.grace_s = grace_s
        self.has_reply = False
        self.is_idle = False
        self.timed_out = False
        self.was_cut = False

    @property
    def is_over(self) -> bool:
        return self.has_reply and self.is_idle

    def take(self, kind: str, parent: str, content: dict[str, Any]) -> None:
        """Takes an iopub message, if it belongs to this run."""
        if parent != self.identity:
            return
        try:
            if kind == "status":
                self.is_idle |= content["execution_state"] == "idle"
            else:
                self.collector.add(kind, content)
        except _BAD_MESSAGE:
            self.collector.truncated = True

    def cut(self) -> None:
        """Takes note that messages are lost, perhaps the one that says that the run is over."""
        self.was_cut = self.is_idle = True

    def reply(self, parent: str) -> None:
        """Takes the answer on the shell channel: the code has ended."""
        if parent == self.identity:
            self.has_reply = True
            self.deadline = time.monotonic() + _LAST_WORDS_S


def _connection(folder: str, key: str) -> dict[str, Any]:
    """Returns the content of jupyter's connection file."""
    return {
        "transport": "ipc",
        "ip": f"{folder}/s",
        "key": key,
        "signature_scheme": "hmac-sha256",
        **{f"{name}_port": port for name, port in _PORTS.items()},
    }
