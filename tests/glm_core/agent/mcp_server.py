"""A small MCP server of the official SDK, for the tests: over pipes, or over HTTP on a port."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import anyio
from mcp.server.mcpserver import Image, MCPServer

PIXEL = bytes.fromhex("89504e470d0a1a0a")
server = MCPServer("small", log_level="INFO" if len(sys.argv) > 1 else "ERROR")


@server.tool()
def add(a: Annotated[int, "the first"], b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def greet(name: str) -> str:
    """Greets."""
    return f"你好, {name}"


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("no luck")


@server.tool()
def draw() -> list[str | Image]:
    """Draws a picture."""
    return ["here:", Image(data=PIXEL, format="png")]


@server.tool()
async def sleep() -> str:
    """Never answers in time."""
    await anyio.sleep(60)
    return "late"


@server.tool()
def variable(name: str) -> str:
    """Tells an environment variable."""
    return os.environ.get(name, "")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
