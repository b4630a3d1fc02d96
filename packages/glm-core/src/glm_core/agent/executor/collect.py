"""Gathers a kernel's messages into a result, within limits; the messages are not trusted."""

from __future__ import annotations

import base64
import re
from typing import Any, Literal

from glm_core.agent.executor.limits import ExecutorLimits
from glm_core.agent.executor.protocol import CodeError, Image, Output

_BINARY = ("image/png", "image/jpeg", "image/gif")
_SVG = "image/svg+xml"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Collector:
    """What one run has given so far."""

    def __init__(self, limits: ExecutorLimits) -> None:
        self._limits = limits
        self._room = limits.output_chars
        self.outputs: list[Output] = []
        self.error: CodeError | None = None
        self.truncated = False

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Takes one iopub message.

        Args:
            kind: its type, as in jupyter's messaging specification.
            content: its content.

        Raises:
            ValueError, TypeError, KeyError: the message is not as the specification says.
        """
        if kind == "stream":
            self._text("stderr" if content["name"] == "stderr" else "stdout", content["text"])
        elif kind in ("execute_result", "display_data", "update_display_data"):
            self._display(content["data"])
        elif kind == "error":
            traceback = "\n".join(content["traceback"])
            self.error = CodeError(
                self._cut(content["ename"]), self._cut(content["evalue"]), self._cut(traceback)
            )

    def _text(self, kind: Literal["stdout", "stderr", "result"], text: str) -> None:
        text = _clean(text)
        kept = text[: self._room]
        self._room -= len(kept)
        self.truncated |= len(kept) < len(text)
        if not kept:
            return
        if self.outputs and self.outputs[-1].kind == kind != "result":
            kept = self.outputs.pop().text + kept
        self.outputs.append(Output(kind, kept))

    def _display(self, data: dict[str, Any]) -> None:
        """Takes the richest form of a value that is kept: a picture, else text, else HTML."""
        for mime in (*_BINARY, _SVG):
            if mime in data:
                self._image(mime, data[mime])
                return
        text = data.get("text/plain") or data.get("text/html")
        if text:
            self._text("result", text)

    def _image(self, mime: str, data: str) -> None:
        if len(data) > 2 * self._limits.image_bytes:  # more than base64 adds
            self.truncated = True
            return
        content = data.encode() if mime == _SVG else base64.b64decode(data)
        count = sum(output.kind == "image" for output in self.outputs)
        if len(content) > self._limits.image_bytes or count == self._limits.images:
            self.truncated = True
            return
        self.outputs.append(Output("image", image=Image(mime, content)))

    def _cut(self, text: str) -> str:
        text = _clean(text)
        self.truncated |= len(text) > self._limits.output_chars
        return text[: self._limits.output_chars]


def _clean(text: str) -> str:
    """Returns text without colours, and with nothing that UTF-8 cannot hold."""
    return _ESCAPES.sub("", text).encode("utf-8", "replace").decode()
