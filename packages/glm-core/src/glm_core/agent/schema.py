"""JSON schemas of Python functions, from their type hints and docstrings."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from glm_core.extras import require

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*$")
_ARGUMENT = re.compile(r"^(\s+)\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class FunctionSchema:
    """What a model is told of a Python function, and how its arguments are made of JSON.

    Hints may be text, numbers, booleans, None, `Any`, lists, tuples, dictionaries, unions,
    `Literal`, enums, dataclasses, TypedDicts and pydantic models, and `Annotated[hint, "what it
    is"]`. Without a description there, the docstring's `Args` has it.

    Args:
        function: every parameter has a hint.
        name: what the model calls it by; by default as Python does.

    Raises:
        ValueError: a parameter has no hint, or one that JSON has nothing for.
    """

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.name = name or getattr(function, "__name__", "")
        self.description, described = _read_docstring(function)
        self._model = self._made_model(function, described)
        self.parameters: dict[str, Any] = _without_titles(self._model.model_json_schema())
        self.parameters["additionalProperties"] = False

    def function(self) -> dict[str, Any]:
        """Returns name, description and parameters as OpenAI writes them."""
        described = {"description": self.description} if self.description else {}
        return {"name": self.name, **described, "parameters": self.parameters}

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the function takes, made of JSON values: enums, dataclasses, defaults.

        Raises:
            ValueError: a value is not of its parameter's type.
        """
        made = self._model.model_validate_json(json.dumps(values), strict=True)
        return {name: getattr(made, name) for name in type(made).model_fields}

    def _made_model(self, function: Callable[..., Any], described: Mapping[str, str]) -> Any:
        pydantic = require("pydantic", extra="agent")
        hints = typing.get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            fields[name] = self._field(pydantic, parameter, hints, described.get(name, ""))
        try:
            model = pydantic.create_model(f"{self.name}_arguments", **fields)
            model.model_json_schema()
        except pydantic.errors.PydanticUserError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"the tool {self.name} has a hint without a schema: {reason}"
            ) from error
        return model

    def _field(
        self, pydantic: Any, parameter: inspect.Parameter, hints: Mapping[str, Any], text: str
    ) -> tuple[Any, Any]:
        name = parameter.name
        kinds = (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.kind not in kinds or name not in hints:
            raise ValueError(
                f"the parameter {name} of the tool {self.name} must have a type hint and be given "
                f"by name, as in def {self.name}({name.strip('_')}: str)"
            )
        hint = hints[name]
        if typing.get_origin(hint) is Annotated:
            texts = [extra for extra in hint.__metadata__ if isinstance(extra, str)]
            text = texts[0] if texts else text
        default = ... if parameter.default is parameter.empty else parameter.default
        return hint, pydantic.Field(default, description=text or None)


def _without_titles(schema: Any) -> Any:
    """Drops the titles that pydantic makes of names; a property called title stays."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: item for key, item in schema.items() if key != "title"}
    return {
        key: {name: _without_titles(inner) for name, inner in item.items()}
        if key in ("properties", "$defs")
        else item
        if key in ("default", "const", "enum", "examples")
        else _without_titles(item)
        for key, item in kept.items()
    }


def _read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Returns what stands before the first section, and the text of each argument."""
    description: list[str] = []
    arguments: dict[str, list[str]] = {}
    section, indent, name = "", 0, ""
    for line in (inspect.getdoc(function) or "").splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading[1]
        elif not section:
            description.append(line)
        elif section.startswith(("Arg", "Param")) and line.strip():
            found = _ARGUMENT.match(line)
            if found and (not name or len(found[1]) <= indent):
                indent, name = len(found[1]), found[2]
                arguments[name] = [found[3]]
            elif name:
                arguments[name].append(line.strip())
    told = {name: " ".join(lines).strip() for name, lines in arguments.items()}
    return "\n".join(description).strip(), told
