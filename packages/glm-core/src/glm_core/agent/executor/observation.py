"""A run's result as the text that a model reads."""

from __future__ import annotations

from glm_core.agent.executor.protocol import ExecutionResult, Output

TRUNCATED = " [TRUNCATED]"
IMAGE = "[Image]"


def observation_text(result: ExecutionResult, limit: int = 1024) -> str:
    """Returns what the model is shown of a run, in ChatGLM3's conventions.

    Output stands in the order in which it came, each picture as `[Image]`; then come the error and
    notes about time and kernel. The notes are never cut.

    Args:
        result: what the run gave.
        limit: characters before ` [TRUNCATED]`, 1024 in the released demo.

    Raises:
        ValueError: `limit` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit={limit}: an observation cannot be shorter than nothing")
    pieces = [_shown(output) for output in result.outputs]
    if result.error is not None and not result.kernel_died:
        pieces.append(result.error.traceback or f"{result.error.name}: {result.error.value}")
    text = _joined(pieces).strip("\n")
    if len(text) > limit or result.truncated:
        text = text[:limit] + TRUNCATED
    return "\n".join(filter(None, [*_before(result), text, *_after(result)]))


def _shown(output: Output) -> str:
    return IMAGE if output.kind == "image" else output.text


def _joined(pieces: list[str]) -> str:
    """Puts pieces below each other; consecutive ones of a stream are one piece already."""
    text = ""
    for piece in pieces:
        text += ("\n" if text and not text.endswith("\n") else "") + piece
    return text


def _before(result: ExecutionResult) -> list[str]:
    return ["[new interpreter: earlier variables are gone]"] if result.fresh_kernel else []


def _after(result: ExecutionResult) -> list[str]:
    notes = []
    if result.timed_out:
        notes.append(f"[stopped after {result.duration_s:.1f} seconds]")
    if result.kernel_died:
        notes.append(f"[the interpreter ended: {result.kernel_died}; variables are lost]")
    return notes
