"""The code interpreter as a tool: what the model wrote is run, what came of it is observed."""

from __future__ import annotations

from typing import Any

import pytest

from glm_core.agent import Image, Observation, ToolRegistry
from glm_core.agent.executor.protocol import CodeError, ExecutionResult, Output
from glm_core.agent.interpreter import interpreter_tool
from glm_core.chat import ToolCall

PIXEL = Image("image/png", b"png")


class Fake:
    """An executor that answers with what it was made with."""

    def __init__(self, **changes: Any) -> None:
        self.heard: list[Any] = []
        self._changes = changes

    def run(self, code: str, timeout_s: float | None = None) -> ExecutionResult:
        self.heard.append((code, timeout_s))
        fields: dict[str, Any] = {
            "outputs": (Output("stdout", "3\n"), Output("image", image=PIXEL)),
            "error": None,
            "truncated": False,
            "timed_out": False,
            "kernel_died": "",
            "fresh_kernel": False,
            "duration_s": 0.1,
        }
        return ExecutionResult(**fields | self._changes)


@pytest.mark.parametrize("name", ["interpreter", "python"])
def test_code_is_run_and_its_output_observed(name: str) -> None:
    executor = Fake()
    registry = ToolRegistry(tools=[interpreter_tool(executor, name, timeout_s=7)])  # type: ignore[arg-type]
    observation = registry.call(ToolCall(name, {}, "print(1 + 2)"))
    assert observation == Observation("3\n[Image]", False, (PIXEL,))
    assert executor.heard == [("print(1 + 2)", 7)]
    assert registry.specs == ([] if name == "interpreter" else [{"type": "python"}])


def test_observation_is_an_error_when_the_code_failed() -> None:
    executor = Fake(outputs=(), error=CodeError("ZeroDivisionError", "division by zero"))
    registry = ToolRegistry(tools=[interpreter_tool(executor)])  # type: ignore[arg-type]
    observation = registry.call(ToolCall("interpreter", {}, "1/0"))
    assert observation == Observation("ZeroDivisionError: division by zero", True)
