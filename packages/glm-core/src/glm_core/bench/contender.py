"""A contender of `glm bench decode`: a process that builds its model and then serves rounds.

The process says in one line of JSON what it is, or {"reason": ...} where it cannot run; for each
line that it reads it computes one round and answers with {"rate": ...}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


class Contender:
    """One process, started at its first round.

    Args:
        job: what it computes: `contender`, perhaps `variant`, and the sizes.
        command: of its process, without the job; that of decode_workers.py when there is none.
        environment: variables that are added to ours.
        reason: why it cannot run; empty when it can.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        self.job = job
        self.command = command or [sys.executable, "-m", "glm_core.bench.decode_workers"]
        self.environment = environment or {}
        self.reason = reason
        self.process: subprocess.Popen[str] | None = None
        self.about: dict[str, Any] = {}
        self.rates: list[float] = []

    @property
    def name(self) -> str:
        """The contender, with its variant."""
        return " ".join(filter(None, (self.job["contender"], self.job.get("variant"))))

    def start(self) -> None:
        """Starts the process and waits until its model stands; notes why it does not."""
        if self.process is not None or self.reason:
            return
        self.process = subprocess.Popen(
            [*self.command, json.dumps(self.job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(self.environment),
        )
        self.about = self._answer()

    def round(self) -> None:
        """Computes one round and notes the rate."""
        self.start()
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer:
            self.rates.append(answer["rate"])

    def close(self) -> None:
        """Ends the process."""
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=120)
        self.process = None

    def _answer(self) -> dict[str, Any]:
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if not line:
            status = self.process.wait()
            answer = {"reason": f"stopped with status {status}; its message stands above"}
        if "reason" in answer:
            self.reason = answer["reason"]
            self.process.wait()
            self.process = None
            return {}
        return answer
