"""The commands and settings of docs/guides/editors.md, as a reader would copy them."""

from __future__ import annotations

import json
import re
import shlex
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from codegeex.complete import Completer
from codegeex.fim import find_format
from codegeex.lsp.settings import Settings, spelt
from codegeex.serve.app import create_code_app
from codegeex.testing import tiny_code_model
from glm_core.chat.transcript import format_or_transcript
from glm_core.infer.engine import Engine
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel
from glm_core.serve.process import Server, bind, url_of

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "editors.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8012"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def requests() -> list[list[str]]:
    """The arguments of every curl."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("curl ")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of a tiny model that is called as the guide's."""
    config = ServeConfig(port=0)
    with Engine(*tiny_code_model()) as engine, bind(config) as bound:
        format = format_or_transcript(engine.tokenizer, engine.layout)
        served = ServedModel(name="nano-code", engine=engine, chat_format=format)
        completer = Completer(engine, find_format("spm"), "nano-code")
        app = create_code_app([served], {"nano-code": completer}, config)
        ready = threading.Event()
        server = Server(app, config, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert ready.wait(20)
        yield url_of(bound)
        server.should_exit = True
        thread.join(20)


@pytest.mark.parametrize("words", requests(), ids=lambda words: words[1].removeprefix(ADDRESS))
def test_curl_is_answered(url: str, words: list[str]) -> None:
    body = words[words.index("-d") + 1].encode()
    flags = zip(words, words[1:], strict=False)
    headers = dict(re.split(": *", word) for flag, word in flags if flag == "-H")
    request = urllib.request.Request(words[1].replace(ADDRESS, url), body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    if words[1].endswith("/api/show"):
        assert ".Suffix" in answer["template"]
        return
    texts = [answer.get("content"), answer.get("response")]
    texts += [choice["text"] for choice in answer.get("choices", [])]
    said = [text for text in texts if text is not None]
    assert said and (any(said) or b"code_middle" in body)  # which this model ends at once


def test_curl_is_shown_for_every_way() -> None:
    assert len(requests()) == 6


def test_settings_can_be_read() -> None:
    for text in blocks("json"):
        json.loads(text)
    for text in blocks("toml"):
        tomllib.loads(text)
    models = [model for text in blocks("yaml") for model in _models(yaml.safe_load(text))]
    assert [model["provider"] for model in models] == ["ollama", "openai"]


def _models(config: object) -> list[dict[str, object]]:
    return config if isinstance(config, list) else config["models"]


def test_settings_of_the_language_server_are_all_told() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", GUIDE, re.MULTILINE))
    defaults = {spelt(one.name): getattr(Settings, one.name) for one in fields(Settings)}
    assert {name: json.loads(value) for name, value in told.items()} == defaults
