"""Real clients over real HTTP: the Python packages of OpenAI and Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest

from codegeex.complete import Completer, Options
from codegeex.hole import Hole

from .asks import NAME, PREFIX, SUFFIX
from .conftest import CONTEXT, Running

_OPTIONS = {"num_predict": 12, "temperature": 0.0}


@pytest.fixture(scope="module")
def openai_client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def ollama_client(server: Running) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as made:
        yield made


@pytest.fixture(scope="module")
def text(completer: Completer) -> str:
    """What the model writes into the hole."""
    hole = Hole(prefix=PREFIX, suffix=SUFFIX)
    return completer.submit(hole, Options(max_new_tokens=12)).outcome().choices[0].text


def test_openai_fills_in(openai_client: openai.OpenAI, text: str) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PREFIX, "suffix": SUFFIX}
    asked |= {"max_tokens": 12, "temperature": 0}
    reply = openai_client.completions.create(**asked)
    assert reply.choices[0].text == text and reply.object == "text_completion"
    assert reply.usage is not None and reply.usage.completion_tokens >= 12
    usage = {"include_usage": True}
    chunks = list(openai_client.completions.create(**asked, stream=True, stream_options=usage))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == text
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage and chunks[-1].usage.prompt_tokens == reply.usage.prompt_tokens


def test_openai_has_everything_else_of_core(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == [NAME]
    reply = openai_client.completions.create(
        model=NAME, prompt=PREFIX, suffix=SUFFIX, n=2, best_of=3, logprobs=2, max_tokens=4, seed=1
    )
    assert len(reply.choices) == 2 and reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.tokens and len(reply.choices[0].logprobs.tokens) <= 4
    echoed = openai_client.completions.create(model=NAME, prompt="import", echo=True, max_tokens=2)
    assert echoed.choices[0].text.startswith("import")
    chat = openai_client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert chat.choices[0].message.role == "assistant"
    with pytest.raises(openai.NotFoundError, match=NAME):
        openai_client.completions.create(model="codegen", prompt="a")


def test_ollama_fills_in(ollama_client: ollama.Client, text: str) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PREFIX, "suffix": SUFFIX}
    asked |= {"options": _OPTIONS}
    reply = ollama_client.generate(**asked)
    assert reply.response == text and reply.done and reply.done_reason == "length"
    assert reply.eval_count and reply.eval_count >= 12 and reply.total_duration
    *pieces, last = ollama_client.generate(**asked, stream=True)
    assert "".join(piece.response or "" for piece in pieces) == text
    assert last.done and last.prompt_eval_count == reply.prompt_eval_count


def test_ollama_chats_lists_and_shows(ollama_client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    reply = ollama_client.chat(model=NAME, messages=messages, options={"num_predict": 4})
    assert reply.message.role == "assistant" and reply.done_reason
    *parts, last = ollama_client.chat(
        model=f"{NAME}:latest", messages=messages, stream=True, options={"num_predict": 4}
    )
    assert parts and last.done and last.eval_count
    (listed,) = ollama_client.list().models
    assert listed.model == NAME and listed.size and listed.digest and listed.details
    (running,) = ollama_client.ps().models
    assert running.name == NAME and running.context_length == CONTEXT
    shown = ollama_client.show(NAME)
    assert shown.template and ".Suffix" in shown.template
    assert shown.capabilities and "insert" in shown.capabilities
    assert shown.modelinfo and shown.modelinfo["glm.context_length"] == CONTEXT


def test_ollama_tells_what_is_wrong(ollama_client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'llama3' not found") as caught:
        ollama_client.generate(model="llama3", prompt="a")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="no eyes"):
        ollama_client.generate(model=NAME, prompt="a", images=[b"\x89PNG"])
    with pytest.raises(ollama.ResponseError, match="there is no such address"):
        ollama_client.pull("llama3")


def test_ollama_streams_in_a_loop_of_asyncio(server: Running, text: str) -> None:
    async def ask() -> str:
        client = ollama.AsyncClient(server.url)
        stream = await client.generate(
            model=NAME, prompt=PREFIX, suffix=SUFFIX, options=_OPTIONS, stream=True
        )
        return "".join([piece.response or "" async for piece in stream])

    assert asyncio.run(ask()) == text
