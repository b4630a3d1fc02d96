"""`GET /docs`: the OpenAPI description as a page without scripts, and nothing of a third party."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;
color-scheme:light dark}
code{font-size:.95em}h2{margin-top:2.5rem}table{border-collapse:collapse;width:100%}
td{padding:.2rem .8rem .2rem 0;vertical-align:top;border-top:1px solid #8884}
"""


def describe(app: FastAPI) -> None:
    """Adds the page of everything that the app's routers offer."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = _page(request.app.openapi())
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _page(schema: dict[str, Any]) -> str:
    parts = [
        _section(path, method, operation, schema)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>The OpenAI API on your own models. For programs: "
        f'<a href="openapi.json">openapi.json</a>.</p>{"".join(parts)}</html>'
    )


def _section(path: str, method: str, operation: dict[str, Any], schema: dict[str, Any]) -> str:
    text = f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    text += f"<p>{escape(operation.get('summary', ''))}</p>"
    body = operation.get("requestBody")
    if body is None:
        return text
    told = body["content"]["application/json"]["schema"]
    if "$ref" not in told:  # any object: its summary says what it may be
        return text
    rows = _rows(schema["components"]["schemas"], told["$ref"].rpartition("/")[2])
    return f"{text}<table>{''.join(rows)}</table>"


def _rows(schemas: dict[str, Any], name: str, prefix: str = "") -> list[str]:
    """Returns a row for each field of a schema; those of an inner object follow it."""
    known, rows = schemas[name], []
    for key, field in known["properties"].items():
        rows.append(_row(prefix + key, field, key in known.get("required", ())))
        for one in _kinds(field):
            if "$ref" in one:
                rows += _rows(schemas, one["$ref"].rpartition("/")[2], f"{prefix}{key}.")
    return rows


def _row(name: str, field: dict[str, Any], is_needed: bool) -> str:
    told = escape(field.get("description", ""))
    mark = " (required)" if is_needed else ""
    return (
        f"<tr><td><code>{escape(name)}</code>{mark}<td><code>{escape(_kind(field))}</code>"
        f"<td>{told}</tr>"
    )


def _kind(field: dict[str, Any]) -> str:
    """Returns a field's type and bounds, in few words."""
    return " or ".join(map(_one_kind, _kinds(field)))


def _kinds(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]


def _one_kind(one: dict[str, Any]) -> str:
    if "$ref" in one:
        return "object"
    if "enum" in one or "const" in one:
        return " or ".join(json.dumps(value) for value in one.get("enum", [one.get("const")]))
    kind = str(one.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(one.get('items', {}))}"
    bounds = [f"{sign} {one[key]:g}" for key, sign in _BOUNDS.items() if key in one]
    return ", ".join([kind, *bounds])


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
