"""The server that is soaked, `glm serve` as anybody starts it, and what it holds at a moment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

CACHE = "8MiB"
"""Little, so that it is soon full and pages are taken from what is remembered of old prompts."""
IDLE_TIMEOUT_S = 20.0
_VALUE = re.compile(r"^(glm_\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_COMMAND = "import sys; from glm_core.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Held:
    """What a server holds while nothing is asked."""

    running: int
    """Requests in the engine."""
    waiting: int
    pages: int
    """Of keys and values, held by requests."""
    tasks: int
    """Of asyncio."""
    threads: int
    files: int
    """File descriptors, sockets among them."""
    resident_mib: float


class SoakServer:
    """A running server.

    Args:
        process: its process.
        url: its address.
        log: the file of its standard error.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.url, self._process, self._log = url, process, log

    def held(self) -> Held:
        """Waits until the server is idle, and returns what it holds then; what it holds after a
        while when it does not become idle."""
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        before = self._held()
        while time.monotonic() < deadline:
            time.sleep(0.2)
            now = self._held()
            is_idle = now.running == now.waiting == 0
            if is_idle and (now.tasks, now.files) == (before.tasks, before.files):
                return now
            before = now
        return before

    def counters(self) -> dict[str, int]:
        """What the engine has counted since the start."""
        prefix, suffix = "glm_engine_", "_total"
        return {
            name[len(prefix) : -len(suffix)]: int(value)
            for name, value in self._metrics().items()
            if name.startswith(prefix) and name.endswith(suffix)
        }

    def errors(self) -> list[str]:
        """What its log tells of exceptions: the line that names each."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        inside, found = False, []
        for line in lines:
            if inside and not line.startswith(" "):
                found.append(line)
            inside = line.startswith("Traceback") or inside and line.startswith(" ")
        return found

    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def _metrics(self) -> dict[str, float]:
        text = _get(self.url, "/metrics").decode()
        return {name: float(value) for name, value in _VALUE.findall(text)}

    def _held(self) -> Held:
        process = Path(f"/proc/{self._process.pid}")
        # before the metrics are asked for, which takes a connection
        num_files = len(os.listdir(process / "fd"))
        status = (process / "status").read_text(encoding="ascii")
        values = self._metrics()
        numbers = dict(re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE))
        return Held(
            running=int(values["glm_engine_running"]),
            waiting=int(values["glm_engine_waiting"]),
            pages=int(values["glm_engine_pages_used"]),
            tasks=int(values["glm_http_tasks"]),
            threads=int(numbers["Threads"]),
            files=num_files,
            resident_mib=int(numbers["VmRSS"]) / 1024,
        )


@contextmanager
def soak_server(model: str) -> Iterator[SoakServer]:
    """Starts a server of a model in a process of its own, and ends it.

    Raises:
        RuntimeError: it does not start, or does not end when it is told to.
    """
    command = [sys.executable, "-c", _COMMAND, "serve", "--model", model, "--port", "0", "--json"]
    with tempfile.TemporaryDirectory(prefix="glm-bench-") as folder:
        log = Path(folder) / "stderr"
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*command, "--cache-memory", CACHE],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline() or "{}")
            if "url" not in started:
                told = started.get("error") or log.read_text()[-500:]
                raise RuntimeError(f"the server to be soaked did not start: {told}")
            yield SoakServer(process, started["url"], log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise RuntimeError("the server did not end within a minute of SIGTERM") from None


def growth(first: Held, last: Held) -> dict[str, float]:
    """How much more of each there is."""
    return {one.name: getattr(last, one.name) - getattr(first, one.name) for one in fields(Held)}


def _get(url: str, path: str) -> bytes:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = HTTPConnection(address.hostname, address.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().read()
    finally:
        connection.close()
