"""What was wrong with the original's demo servers, and must not be wrong here."""

from __future__ import annotations

import threading
import time

import httpx2
import pytest

from glm_core.infer.engine import Engine

from .conftest import NAME


def test_others_are_answered_while_one_is_generated(
    http: httpx2.Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original generated inside an `async def`: nobody else was answered meanwhile."""
    step = engine._scheduler.step
    monkeypatch.setattr(engine._scheduler, "step", lambda: (time.sleep(0.02), step()))
    ended: list[float] = []

    def ask_long() -> None:
        body = {"model": NAME, "prompt": "def add(", "max_tokens": 150, "temperature": 0}
        assert http.post("/v1/completions", json=body).status_code == 200
        ended.append(time.monotonic())

    long = threading.Thread(target=ask_long)
    long.start()
    while engine.stats().running == 0:
        time.sleep(0.002)
    assert http.get("/health").status_code == 200
    body = {"model": NAME, "prompt": "x = ", "max_tokens": 2, "temperature": 0}
    assert http.post("/v1/completions", json=body).status_code == 200
    short = time.monotonic()
    long.join()
    assert short < ended[0]


def test_answers_are_texts_when_several_are_wanted(http: httpx2.Client) -> None:
    """One demo added its list of answers to the prompt, a TypeError; another answered a tuple."""
    body = {"model": NAME, "prompt": "def add(", "max_tokens": 8, "n": 3, "temperature": 1.0}
    choices = http.post("/v1/completions", json=body).json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(len(choices))) and choices
    assert all(isinstance(choice["text"], str) for choice in choices)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_length_counts_new_tokens_alone_when_the_prompt_is_longer(
    http: httpx2.Client, path: str
) -> None:
    """chatglm.cpp's server took max_tokens for the length of prompt and answer."""
    prompt = "def add(a, b):\n" * 6
    told = {"prompt": prompt} if "chat" not in path else {"messages": _message(prompt)}
    body = {"model": NAME, "max_tokens": 5, "temperature": 0} | told
    usage = http.post(path, json=body).json()["usage"]
    assert usage["prompt_tokens"] > 5 and 1 <= usage["completion_tokens"] <= 5


def _message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
