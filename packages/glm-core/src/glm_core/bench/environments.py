"""Throw-away environments for peers that this repository does not need: `.bench/NAME`.

`glm bench decode --setup-peers` makes what is missing. Nothing outside `.bench` is changed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

ROOT = Path(".bench")
STAMP = "complete.json"
"""Written last, with what was installed: without it an environment is begun anew."""
SECONDS_BETWEEN_LINES = 30.0
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would let the new environment see packages of another one."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a peer is installed with."""

    name: str
    compiled: str
    """The peer's package and version; compiled here, for this processor's instructions."""
    requirements: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    """Set while it is compiled."""

    @property
    def folder(self) -> Path:
        """Where it is, below the current folder."""
        return ROOT / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        """What installing it printed."""
        return ROOT / f"{self.name}.log"

    def reason(self) -> str:
        """Why it cannot be used yet; empty when it can."""
        stamp = self.folder / STAMP
        if not stamp.exists():
            return f"it is not set up: --setup-peers installs it into {self.folder}"
        if json.loads(stamp.read_text(encoding="utf-8")) != self._recipe():
            return f"{self.folder} was installed otherwise: --setup-peers does it again"
        return ""

    def set_up(self) -> str:
        """Installs it if it is not there yet; returns why that failed, or an empty string."""
        if not self.reason():
            return ""
        logger.info(
            "setting up %s in %s: downloads and compiles, which takes minutes; log in %s",
            self.name,
            self.folder,
            self.log,
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        ROOT.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        package = self.compiled.partition("==")[0]
        # pip's cache would hand out what it compiled before, with whatever flags that was
        install = ["-m", "pip", "install", "--no-cache-dir", "--no-binary", package, self.compiled]
        if not (
            self.run([sys.executable, "-m", "venv", str(self.folder)])
            and self.run([str(self.python), *install, *self.requirements])
        ):
            return f"installing it failed, as {self.log} tells"
        (self.folder / STAMP).write_text(json.dumps(self._recipe()), encoding="utf-8")
        logger.info("%s is set up", self.name)
        return ""

    def _recipe(self) -> dict[str, object]:
        return {
            "compiled": self.compiled,
            "requirements": list(self.requirements),
            "variables": dict(self.variables),
        }

    def run(self, command: Sequence[str]) -> bool:
        """Runs a command into the log, with a line about it now and then; whether it succeeded."""
        kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        started = shown = time.monotonic()
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=kept | dict(self.variables), stdout=log, stderr=subprocess.STDOUT
            )
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
                    shown = time.monotonic()
                    logger.info("%s: still at it, %.0f s", self.name, shown - started)
        return process.returncode == 0
