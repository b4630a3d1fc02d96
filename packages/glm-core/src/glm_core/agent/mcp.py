"""Tools of MCP servers, through the official SDK: programs spoken to over their pipes, and URLs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glm_core.agent.background import background_loop, run_in_background
from glm_core.agent.executor.protocol import Image
from glm_core.agent.registry import DEFAULT_TIMEOUT_S, AgentTool, Observation
from glm_core.chat.message import ToolCall
from glm_core.checkpoint.files import read_json
from glm_core.extras import require

_MAX_PAGES = 100
_EXAMPLE = '{"mcpServers": {"files": {"command": "python", "args": ["server.py"]}}}'


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """How to reach a server: a program, or a URL."""

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the few variables that the program inherits."""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Seconds for the connection, and for each call."""

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.url):
            raise ValueError(
                f"the MCP server {self.name!r} must have a command or a url, as in {_EXAMPLE}"
            )


def read_mcp_servers(path: Path | str) -> list[McpServer]:
    """Returns the servers that a file lists in the usual form.

    Raises:
        ValueError: the file is missing, or of another form.
    """
    data = read_json(Path(path), f"give a file such as {_EXAMPLE}")
    servers = data.get("mcpServers") if isinstance(data, dict) else None
    if not isinstance(servers, dict) or not all(isinstance(one, dict) for one in servers.values()):
        raise ValueError(f"{path} lists no MCP servers: it must be such as {_EXAMPLE}")
    return [_server(name, one, path) for name, one in servers.items()]


class McpTools:
    """The tools of some servers, as long as it is entered.

        with McpTools(read_mcp_servers("mcp.json")) as mcp:
            registry = ToolRegistry(tools=mcp.tools)

    A tool whose name two servers have is called `server_name`.

    Args:
        servers: to connect to.
    """

    def __init__(self, servers: Iterable[McpServer]) -> None:
        self.servers = list(servers)
        self.tools: list[AgentTool] = []
        self._ending: asyncio.Event | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        require("mcp", extra="agent")
        try:
            self.tools = run_in_background(self._open())
        except BaseException:
            run_in_background(self._close())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run_in_background(self._close())

    async def _open(self) -> list[AgentTool]:
        self._ending = asyncio.Event()
        waiting = []
        for server in self.servers:
            listed: asyncio.Future[list[AgentTool]] = background_loop().create_future()
            # A connection must end in the task that began it.
            self._tasks.append(asyncio.create_task(self._serve(server, listed)))
            waiting.append(listed)
        found = [
            (server, one)
            for server, listed in zip(self.servers, waiting, strict=True)
            for one in await listed
        ]
        counts = Counter(one.name for _, one in found)
        return [one if counts[one.name] == 1 else _prefixed(server, one) for server, one in found]

    async def _close(self) -> None:
        if self._ending is not None:
            self._ending.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks, self.tools = [], []

    async def _serve(self, server: McpServer, listed: asyncio.Future[list[AgentTool]]) -> None:
        assert self._ending is not None
        try:
            async with _client(server) as client:
                tools = await asyncio.wait_for(_list_tools(server, client), server.timeout_s)
                listed.set_result(tools)
                await self._ending.wait()
        except Exception as error:
            if not listed.done():
                listed.set_exception(_unreachable(server, error))


@contextlib.asynccontextmanager
async def _client(server: McpServer) -> AsyncIterator[Any]:
    import mcp

    async with contextlib.AsyncExitStack() as stack:
        target: Any = server.url
        if server.command:
            target = mcp.StdioServerParameters(
                command=server.command, args=list(server.args), env=dict(server.env)
            )
        elif server.headers:
            target = await _with_headers(server, stack)
        client = mcp.Client(target, read_timeout_seconds=server.timeout_s)
        yield await stack.enter_async_context(client)


async def _with_headers(server: McpServer, stack: contextlib.AsyncExitStack) -> Any:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    timeout = httpx2.Timeout(server.timeout_s)
    http = httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout)
    return streamable_http_client(server.url, http_client=await stack.enter_async_context(http))


async def _list_tools(server: McpServer, client: Any) -> list[AgentTool]:
    tools: list[AgentTool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [_tool(server, client, one) for one in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return tools
    raise ValueError(f"its list of tools has more than {_MAX_PAGES} pages")


def _tool(server: McpServer, client: Any, told: Any) -> AgentTool:
    async def run(call: ToolCall) -> Observation:
        result = await client.call_tool(told.name, dict(call.arguments))
        return observation_of_result(result)

    name = re.sub(r"[^A-Za-z0-9_.-]", "_", told.name)[:64]
    return _renamed(
        AgentTool(name, run, {"parameters": told.input_schema}, server.timeout_s),
        name,
        told.description or told.title or "",
    )


def _prefixed(server: McpServer, known: AgentTool) -> AgentTool:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{server.name}_{known.name}")[:64]
    return _renamed(known, name, str((known.function or {}).get("description", "")))


def _renamed(known: AgentTool, name: str, description: str) -> AgentTool:
    assert known.function is not None
    told = {"name": name, "description": description, "parameters": known.function["parameters"]}
    return AgentTool(name, known.run, told, known.timeout_s)


def observation_of_result(result: Any) -> Observation:
    """Returns what a server's CallToolResult says: its texts, or its JSON where it has none."""
    texts: list[str] = []
    images: list[Image] = []
    for block in result.content:
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "image":
            texts.append("[Image]")
            images.append(Image(block.mime_type, base64.b64decode(block.data)))
        elif block.type == "resource":
            texts.append(getattr(block.resource, "text", f"[Resource {block.resource.uri}]"))
        elif block.type == "resource_link":
            texts.append(f"[Resource {block.uri}]")
        else:
            texts.append(f"[{block.type.capitalize()}]")
    if not texts and result.structured_content is not None:
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return Observation("\n".join(texts), bool(result.is_error), tuple(images))


def _server(name: str, data: Mapping[str, Any], path: Path | str) -> McpServer:
    known = {"command": str, "args": list, "env": dict, "url": str, "headers": dict}
    for key, kind in known.items():
        if key in data and not isinstance(data[key], kind):
            raise ValueError(f"{path}: {key} of the MCP server {name!r} is {data[key]!r}")
    given = {key: data[key] for key in known if key in data}
    given["args"] = tuple(map(str, given.get("args", ())))
    return McpServer(name=name, **given)


def _unreachable(server: McpServer, error: BaseException) -> ValueError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    reason = " ".join(str(error).split()) or type(error).__name__
    place = server.url or " ".join([server.command, *server.args])
    return ValueError(f"the MCP server {server.name!r} ({place}) cannot be used: {reason}")
