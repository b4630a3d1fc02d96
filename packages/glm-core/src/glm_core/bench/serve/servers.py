"""The servers that are measured, each a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

READY_TIMEOUT_S = 600.0
"""Longest that loading a model may take."""


class ServerProcess:
    """One server.

    Args:
        name: of the contender.
        command: starts it.
        ignores_end: gives the fields of a request that must not end before so many tokens.
        reason: why it cannot run; empty when it can.
        environment: variables that are added to ours.
        log: file for what it writes to standard error; without one it comes out at ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ignores_end: Callable[[int], dict[str, Any]],
        reason: str = "",
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.name, self.reason = name, reason
        self.ignores_end = ignores_end
        self.about: dict[str, Any] = {}
        self.url = ""
        self._command, self._environment = command, dict(environment or {})
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it and waits until it takes requests; notes why it does not."""
        if self.reason or self._process is not None:
            return
        with ExitStack() as stack:
            errors = None if self._log is None else stack.enter_context(self._log.open("w"))
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | self._environment,
            )
        if not self._is_ready():
            self.reason = f"its server ended with status {self._process.wait()}{self._last_words()}"
            self._process = None

    def close(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=120)
            self._process = None

    def _last_words(self) -> str:
        lines = [] if self._log is None else self._log.read_text(errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""

    def _is_ready(self) -> bool:
        """Reads the line that a ready server prints."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        self.about = json.loads(line) if line else {}
        self.url = self.about.get("url", "")
        return bool(line)


class LlamaProcess(ServerProcess):
    """llama.cpp's server, which tells at an address whether it is ready.

    Args:
        port: that its command names.
        about: what there is to tell of it.
    """

    def __init__(self, *args: Any, port: int, about: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._port, self.about = port, about

    def _is_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if _status(self._port) == 200:
                self.url = f"http://127.0.0.1:{self._port}"
                return True
            time.sleep(0.1)
        self._process.terminate()
        return False


def our_server(job: Mapping[str, Any]) -> ServerProcess:
    """Ours."""
    command = [sys.executable, "-m", "glm_core.bench.serve.server_worker", json.dumps(job)]
    return ServerProcess("ours", command, lambda tokens: {"min_tokens": tokens})


def llama_command(program: Path, model: Path, job: Mapping[str, Any], context: int) -> list[str]:
    """How llama.cpp's server is started: as many slots as streams, nothing kept between requests.

    Args:
        context: tokens that each slot has room for.
    """
    streams, threads = str(job["streams"]), str(job["threads"])
    return [
        *(str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(job["port"])),
        *("--threads", threads, "--threads-batch", threads, "--parallel", streams),
        *("--ctx-size", str(job["streams"] * context), "--cache-ram", "0", "--no-webui"),
        "--log-disable",
    ]


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _status(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
