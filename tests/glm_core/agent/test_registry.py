"""Python functions as tools: their schemas, their calls, and all that can go wrong."""

from __future__ import annotations

import asyncio
import enum
import threading
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import pytest
from typing_extensions import TypedDict

from glm_core.agent import AgentTool, Observation, ToolRegistry, tool
from glm_core.agent.schema import FunctionSchema
from glm_core.chat import ToolCall


class Unit(enum.Enum):
    celsius = "C"
    fahrenheit = "F"


@dataclass
class Place:
    city: str
    height: float = 0.0


class Span(TypedDict):
    first: int
    last: int


def forecast(
    place: Place,
    days: Annotated[list[int], "which days"],
    unit: Unit = Unit.celsius,
    kind: Literal["short", "long"] = "short",
    note: Optional[str] = None,  # noqa: UP045
    span: Span | None = None,
    extra: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Forecasts the weather.

    From yesterday's.

    Args:
        place: where, which may be
            anywhere
        days: is described by its hint
        kind (str): how long

    Returns:
        nothing: of interest
    """
    return {"city": place.city, "h": place.height, "days": days, "unit": unit, "span": span}


def test_schema_is_made_of_hints_and_docstring() -> None:
    told = FunctionSchema(forecast).function()
    assert told["name"] == "forecast"
    assert told["description"] == "Forecasts the weather.\n\nFrom yesterday's."
    parameters = told["parameters"]
    assert parameters["required"] == ["place", "days"]
    assert parameters["additionalProperties"] is False
    properties = parameters["properties"]
    assert properties["days"] == {
        "description": "which days",
        "items": {"type": "integer"},
        "type": "array",
    }
    assert properties["kind"] == {
        "default": "short",
        "description": "how long",
        "enum": ["short", "long"],
        "type": "string",
    }
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["place"]["description"] == "where, which may be anywhere"
    assert parameters["$defs"]["Unit"] == {"enum": ["C", "F"], "type": "string"}
    assert parameters["$defs"]["Place"]["required"] == ["city"]
    assert parameters["$defs"]["Span"]["required"] == ["first", "last"]


def test_parameter_called_title_stays() -> None:
    def name(title: str) -> str:
        return title

    assert FunctionSchema(name).parameters["properties"] == {"title": {"type": "string"}}


def test_call_gets_the_types_of_its_hints() -> None:
    registry = ToolRegistry([forecast])
    arguments = {
        "place": {"city": "北京"},
        "days": [1, 2],
        "unit": "F",
        "span": {"first": 1, "last": 2},
    }
    observation = registry.call(ToolCall("forecast", arguments))
    assert observation == Observation(
        '{"city": "北京", "h": 0.0, "days": [1, 2], "unit": "F", "span": {"first": 1, "last": 2}}'
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"days": "1"}, "'1' is not of type 'array' (at ['days'])"),
        ({"days": [1, "x"]}, "'x' is not of type 'integer' (at ['days'][1])"),
        ({"unit": "K"}, "'K' is not one of ['C', 'F'] (at ['unit'])"),
        ({"more": 1}, "Additional properties are not allowed ('more' was unexpected)"),
        ({"place": {}}, "'city' is a required property (at ['place'])"),
    ],
)
def test_observation_says_so_when_arguments_are_wrong(changes: dict[str, Any], reason: str) -> None:
    arguments = {"place": {"city": "a"}, "days": []} | changes
    observation = ToolRegistry([forecast]).call(ToolCall("forecast", arguments))
    assert observation.is_error
    assert observation.text == f"Error: the arguments of forecast are wrong: {reason}"


def test_async_function_is_awaited() -> None:
    @tool(name="double")
    async def twice(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    assert ToolRegistry([twice]).call(ToolCall("double", {"x": 21})).text == "42"


def test_exception_becomes_an_observation_without_a_traceback() -> None:
    def divide(a: int, b: int) -> float:
        return a / b

    def leave() -> None:
        raise SystemExit(3)

    registry = ToolRegistry([divide, leave])
    failed = registry.call(ToolCall("divide", {"a": 1, "b": 0}))
    assert failed == Observation("Error: ZeroDivisionError: division by zero", True)
    assert registry.call(ToolCall("leave", {})) == Observation(
        "Error: RuntimeError: SystemExit: 3", True
    )


def test_observation_says_so_when_time_is_up() -> None:
    stop = threading.Event()

    def hang() -> None:
        stop.wait(30)

    async def hang_async() -> None:
        await asyncio.sleep(30)

    registry = ToolRegistry()
    registry.register(hang, timeout_s=0.05)
    registry.register(hang_async, timeout_s=0.05)
    for name in ("hang", "hang_async"):
        observation = registry.call(ToolCall(name, {}))
        assert observation == Observation(f"Error: {name} gave no answer within 0.05 s", True)
    stop.set()


def test_observation_says_so_when_there_is_no_such_tool() -> None:
    observation = ToolRegistry([forecast]).call(ToolCall("get_shell", {"command": "ls"}))
    assert observation == Observation("Error: there is no tool get_shell. Tools: forecast", True)


def test_tool_takes_text_when_it_has_no_description() -> None:
    async def run(call: ToolCall) -> Observation:
        return Observation(call.text.upper())

    registry = ToolRegistry(tools=[AgentTool("interpreter", run), AgentTool("python", run)])
    assert registry.specs == [{"type": "python"}]
    assert registry.call(ToolCall("interpreter", {}, "abc")).text == "ABC"
    assert registry.call(ToolCall("python", {})).is_error


def test_function_is_refused_when_it_cannot_be_described() -> None:
    def bare(x) -> None:  # type: ignore[no-untyped-def]
        pass

    def many(*values: int) -> None:
        pass

    def odd(x: threading.Event) -> None:
        pass

    with pytest.raises(ValueError, match="parameter x of the tool bare must have a type hint"):
        ToolRegistry([bare])
    with pytest.raises(ValueError, match="parameter values of the tool many must have"):
        ToolRegistry([many])
    with pytest.raises(ValueError, match="tool odd has a hint without a schema"):
        ToolRegistry([odd])
    with pytest.raises(ValueError, match="'forecast': the name must be .* and no other tool's"):
        ToolRegistry([forecast, forecast])
