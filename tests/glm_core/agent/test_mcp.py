"""Tools of a real MCP server, over pipes and over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glm_core.agent import Image, Observation, ToolRegistry
from glm_core.agent.mcp import McpServer, McpTools, observation_of_result, read_mcp_servers
from glm_core.chat import ToolCall

SERVER = Path(__file__).with_name("mcp_server.py")
PIXEL = bytes.fromhex("89504e470d0a1a0a")


def _piped(name: str, **options: Any) -> McpServer:
    return McpServer(name=name, command=sys.executable, args=(str(SERVER),), **options)


@pytest.fixture(scope="module")
def registry() -> Iterator[ToolRegistry]:
    with McpTools([_piped("one", env={"COLOUR": "red"})]) as mcp:
        yield ToolRegistry(tools=mcp.tools)


def test_tools_are_listed_with_their_schemas(registry: ToolRegistry) -> None:
    names = ["add", "greet", "fail", "draw", "sleep", "variable"]
    assert list(registry.tools) == names
    function = registry.specs[0]["function"]
    assert (function["name"], function["description"]) == ("add", "Adds two numbers.")
    assert function["parameters"]["required"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "arguments", "observation"),
    [
        ("add", {"a": 1, "b": 2}, Observation("3")),
        ("greet", {"name": "W"}, Observation("你好, W")),
        ("variable", {"name": "COLOUR"}, Observation("red")),
        ("draw", {}, Observation("here:\n[Image]", False, (Image("image/png", PIXEL),))),
        ("fail", {}, Observation("Error executing tool fail", True)),
    ],
)
def test_call_gives_what_the_server_answers(
    registry: ToolRegistry, name: str, arguments: dict[str, Any], observation: Observation
) -> None:
    assert registry.call(ToolCall(name, arguments)) == observation


def test_arguments_are_checked_before_the_call(registry: ToolRegistry) -> None:
    observation = registry.call(ToolCall("add", {"a": 1, "b": "2"}))
    assert observation.is_error
    assert "the arguments of add are wrong: '2' is not of type 'integer'" in observation.text


def test_tools_are_told_apart_when_two_servers_have_the_same() -> None:
    with McpTools([_piped("one"), _piped("two words")]) as mcp:
        registry = ToolRegistry(tools=mcp.tools)
        assert list(registry.tools)[::6] == ["one_add", "two_words_add"]
        assert registry.call(ToolCall("two_words_add", {"a": 1, "b": 1})).text == "2"
        assert registry.specs[0]["function"]["name"] == "one_add"


def test_server_is_used_over_http() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(port)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b"running on" in line:
                break
        url = f"http://127.0.0.1:{port}/mcp"
        plain = McpServer(name="one", url=url)
        headed = McpServer(name="two", url=url, headers={"X-Key": "1"}, timeout_s=1.0)
        with McpTools([plain, headed]) as mcp:
            registry = ToolRegistry(tools=mcp.tools)
            assert registry.call(ToolCall("one_greet", {"name": "W"})).text == "你好, W"
            assert registry.call(ToolCall("two_add", {"a": 1, "b": 2})).text == "3"
            late = registry.call(ToolCall("two_sleep", {}))
            assert late.is_error and late.text.startswith("Error: ")
    finally:
        process.kill()
        process.communicate()


def test_other_blocks_are_named_and_json_stands_in_for_texts() -> None:
    blocks = [
        SimpleNamespace(type="audio"),
        SimpleNamespace(type="resource_link", uri="file:///a"),
        SimpleNamespace(type="resource", resource=SimpleNamespace(uri="", text="inside")),
        SimpleNamespace(type="resource", resource=SimpleNamespace(uri="file:///b")),
    ]
    result = SimpleNamespace(content=blocks, structured_content=None, is_error=False)
    assert observation_of_result(result).text == (
        "[Audio]\n[Resource file:///a]\ninside\n[Resource file:///b]"
    )
    bare = SimpleNamespace(content=[], structured_content={"度": 3}, is_error=True)
    assert observation_of_result(bare) == Observation('{"度": 3}', True)


@pytest.mark.parametrize(
    "server",
    [
        McpServer(name="lost", command="/nowhere/server"),
        McpServer(name="lost", command=sys.executable, args=("-c", "")),
        McpServer(name="lost", url="http://127.0.0.1:9/mcp"),
    ],
)
def test_server_is_named_when_it_cannot_be_used(server: McpServer) -> None:
    with pytest.raises(ValueError, match=r"MCP server 'lost' \(.*\) cannot be used: "):
        McpTools([server]).__enter__()


def test_file_of_servers_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    told = {"files": {"command": "x", "args": ["1"], "env": {"A": "b"}}, "web": {"url": "http://u"}}
    path.write_text(json.dumps({"mcpServers": told}))
    assert read_mcp_servers(path) == [
        McpServer(name="files", command="x", args=("1",), env={"A": "b"}),
        McpServer(name="web", url="http://u"),
    ]
    for data, reason in (
        ({"servers": {}}, "lists no MCP servers"),
        ({"mcpServers": {"a": {}}}, "'a' must have a command or a url"),
        ({"mcpServers": {"a": {"command": 3}}}, "command of the MCP server 'a' is 3"),
    ):
        path.write_text(json.dumps(data))
        with pytest.raises(ValueError, match=reason):
            read_mcp_servers(path)
