"""Tools that a model may call: Python functions, and whatever else can be called like one."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from glm_core.agent.background import in_daemon_thread, run_in_background
from glm_core.agent.executor.protocol import Image
from glm_core.agent.schema import FunctionSchema
from glm_core.chat.message import Tool, ToolCall
from glm_core.chat.roles import INTERPRETER
from glm_core.chat.tool_calls import looks_like_name
from glm_core.extras import require

DEFAULT_TIMEOUT_S = 30.0
_MARK = "__agent_tool__"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Observation:
    """What a tool answered."""

    text: str
    """For the model; each picture stands in it as [Image]."""
    is_error: bool = False
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class AgentTool:
    """A tool and how it is run."""

    name: str
    run: Callable[[ToolCall], Awaitable[Observation]]
    """Called in the background loop; what it raises becomes an observation."""
    function: Mapping[str, Any] | None = None
    """Name, description and parameters; None for a tool that takes plain text, and that the model
    knows without a description."""
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def spec(self) -> Tool | None:
        """What the model is told of it; ChatGLM3 is told nothing of its interpreter."""
        if self.function is not None:
            return {"type": "function", "function": dict(self.function)}
        return None if self.name == INTERPRETER else {"type": self.name}


def tool(function: F | None = None, *, name: str = "", timeout_s: float = DEFAULT_TIMEOUT_S) -> Any:
    """Marks a function as a tool, with other settings than the usual ones if need be.

    @tool
    def add(a: int, b: int) -> int: ...

    @tool(name="search", timeout_s=5)
    async def find(query: Annotated[str, "what to look for"]) -> list[str]: ...
    """

    def mark(function: F) -> F:
        setattr(function, _MARK, {"name": name, "timeout_s": timeout_s})
        return function

    return mark if function is None else mark(function)


def marked_tools(module: Any) -> list[Callable[..., Any]]:
    """Returns the functions of a module that `tool` has marked, in the order of their names."""
    return [value for _, value in inspect.getmembers(module) if hasattr(value, _MARK)]


class ToolRegistry:
    """The tools of one conversation.

    Args:
        functions: registered with the usual settings, or those that `tool` gave.
        tools: of other kinds, such as those of `McpTools`.
    """

    def __init__(
        self, functions: Iterable[Callable[..., Any]] = (), tools: Iterable[AgentTool] = ()
    ) -> None:
        self._tools: dict[str, AgentTool] = {}
        for function in functions:
            self.register(function)
        for known in tools:
            self.add(known)

    @property
    def specs(self) -> list[Tool]:
        """What the model is told, as a chat session takes it."""
        return [one.spec for one in self._tools.values() if one.spec is not None]

    @property
    def tools(self) -> Mapping[str, AgentTool]:
        """The tools by name."""
        return self._tools

    def register(
        self, function: Callable[..., Any], *, name: str = "", timeout_s: float | None = None
    ) -> None:
        """Adds a function; its schema is made of its hints (see `FunctionSchema`).

        Args:
            function: with `async` or without. One without that does not return in time goes on in
                its thread, and nobody hears of it any more.
            name: what the model calls it by.
            timeout_s: seconds.

        Raises:
            ValueError: the function cannot be described, or the name is taken.
        """
        marked = getattr(function, _MARK, {"name": "", "timeout_s": DEFAULT_TIMEOUT_S})
        schema = FunctionSchema(function, name or marked["name"])
        seconds = marked["timeout_s"] if timeout_s is None else timeout_s

        async def run(call: ToolCall) -> Observation:
            arguments = schema.arguments(call.arguments)
            if inspect.iscoroutinefunction(function):
                return observation_of(await function(**arguments))
            return observation_of(await in_daemon_thread(lambda: function(**arguments)))

        self.add(AgentTool(schema.name, run, schema.function(), seconds))

    def add(self, known: AgentTool) -> None:
        """Adds a tool.

        Raises:
            ValueError: the name is taken, or could not be written by a model.
        """
        if not looks_like_name(known.name) or known.name in self._tools:
            raise ValueError(
                f"a tool is called {known.name!r}: the name must be letters, digits and _, and no "
                "other tool's"
            )
        self._tools[known.name] = known

    def call(self, call: ToolCall) -> Observation:
        """Makes a call and waits for its answer. Whatever goes wrong is an observation too."""
        return run_in_background(self.call_async(call))

    async def call_async(self, call: ToolCall) -> Observation:
        """As `call`, in a running loop."""
        known = self._tools.get(call.name)
        if known is None:
            names = ", ".join(self._tools) or "none"
            return Observation(f"Error: there is no tool {call.name}. Tools: {names}", True)
        fault = argument_fault(call, known)
        if fault:
            return Observation(f"Error: {fault}", True)
        try:
            return await asyncio.wait_for(known.run(call), known.timeout_s)
        except TimeoutError:
            return Observation(
                f"Error: {call.name} gave no answer within {known.timeout_s:g} s", True
            )
        except Exception as error:
            return Observation(f"Error: {_line(error)}", True)


def argument_fault(call: ToolCall, known: AgentTool) -> str:
    """Returns what is wrong with a call's arguments by the tool's schema; empty if nothing."""
    if known.function is None:
        return "" if call.text else f"{call.name} takes plain text, and there is none"
    if call.text:
        return f"{call.name} takes arguments, no plain text"
    jsonschema = require("jsonschema", extra="agent")
    schema = known.function.get("parameters") or {"type": "object"}
    validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        error = jsonschema.exceptions.best_match(validator(schema).iter_errors(call.arguments))
    except Exception as broken:  # the schema comes from outside: references, patterns
        return f"the schema of {call.name} cannot be checked ({_line(broken)})"
    if error is None:
        return ""
    place = "".join(f"[{part!r}]" for part in error.absolute_path)
    return f"the arguments of {call.name} are wrong: {_short(error.message)}" + (
        f" (at {place})" if place else ""
    )


def observation_of(value: Any) -> Observation:
    """Returns a function's result as an observation: text as it is, all else as JSON."""
    if isinstance(value, Observation):
        return value
    if isinstance(value, str):
        return Observation(value)
    plain = require("pydantic_core", extra="agent", package="pydantic").to_jsonable_python(
        value, fallback=str
    )
    return Observation(json.dumps(plain, ensure_ascii=False))


def _line(error: Exception) -> str:
    """One line on an exception: its kind and message, no traceback."""
    return _short(f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "))


def _short(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
