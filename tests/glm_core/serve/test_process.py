"""The server as a process: how it starts and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from glm_core.chat.transcript import format_or_transcript
from glm_core.checkpoint.loading import load_model
from glm_core.infer.engine import Engine, EngineConfig
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel
from glm_core.serve.process import bind, ready_text, url_of

from .conftest import Running, running

COMMAND = "import sys; from glm_core.cli import main; sys.exit(main(sys.argv[1:]))"
LONG = {"model": "nano-text", "prompt": "a", "temperature": 1, "stream": True}
LONG |= {"min_tokens": 150, "max_tokens": 150}


@contextmanager
def _started(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs `glm serve` and gives its address."""
    arguments = ["serve", "--model", "nano-text", "--port", "0", "--json", *flags]
    arguments += ["--cache-memory", "64MB"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        told: dict[str, Any] = json.loads(line)
        assert told["models"] == ["nano-text"]
        yield process, told["url"]
    finally:
        process.kill()
        process.communicate()


def _long_answer(url: str, events: list[str], **changes: Any) -> threading.Thread:
    """Asks for many tokens in another thread; returns once the first has come."""
    begun = threading.Event()

    def read() -> None:
        url_of_all = f"{url}/v1/completions"
        try:
            with httpx2.stream("POST", url_of_all, json=LONG | changes, timeout=60) as stream:
                for line in filter(None, stream.iter_lines()):
                    events.append(line)
                    begun.set()
        except httpx2.TransportError:
            events.append("cut")

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(30)
    return thread


def test_running_answers_are_finished_and_new_requests_refused_when_it_is_told_to_end() -> None:
    events: list[str] = []
    with _started() as (process, url):
        thread = _long_answer(url, events)
        process.send_signal(signal.SIGTERM)
        _until_draining(url)
        health = httpx2.get(f"{url}/health")
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        refused = httpx2.post(f"{url}/v1/completions", json=LONG)
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["error"]["code"] == "draining"
        thread.join(60)
        assert process.wait(10) == 0
    assert events[-1] == "data: [DONE]"
    assert len(events) > 100


@pytest.mark.parametrize("is_hurried", [False, True])
def test_answers_are_cut_when_they_do_not_end_in_time(is_hurried: bool) -> None:
    events: list[str] = []
    with Engine(*load_model("nano-text", progress=False), config=EngineConfig()) as engine:
        format = format_or_transcript(engine.tokenizer, engine.layout)
        model = ServedModel(name="nano-text", engine=engine, chat_format=format)
        drain_timeout_s = 30.0 if is_hurried else 0.01
        with running([model], ServeConfig(port=0, drain_timeout_s=drain_timeout_s)) as started:
            thread = _long_answer(started.url, events, min_tokens=1000, max_tokens=1000)
            started.server.handle_exit(signal.SIGINT, None)
            if is_hurried:
                started.server.handle_exit(signal.SIGINT, None)
            thread.join(10)
            assert not thread.is_alive()
    assert "data: [DONE]" not in events
    if not is_hurried:
        error = json.loads(events[-1].removeprefix("data: "))["error"]
        assert error["code"] == "request_cancelled"


def test_answers_do_not_wait_for_acknowledgements(server: Running) -> None:
    seconds = []
    with httpx2.Client(base_url=server.url) as client:
        for _ in range(20):
            start = time.perf_counter()
            client.get("/health")
            seconds.append(time.perf_counter() - start)
    assert min(seconds[5:]) < 0.03  # 0.044 where each answer waited, 0.001 where none does


def test_address_is_refused_before_weights_are_read_when_it_is_taken() -> None:
    with bind(ServeConfig(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}"):
            bind(ServeConfig(port=port))


def test_start_tells_how_to_ask() -> None:
    text = ready_text(["a", "b"], "http://127.0.0.1:8000", has_key=True)
    assert "serving a, b at http://127.0.0.1:8000" in text
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in text
    assert "$GLM_API_KEY" in text and '"model": "a"' in text
    assert "GLM_API_KEY" not in ready_text(["a"], "http://127.0.0.1:8000", has_key=False)


def test_url_can_be_opened_when_the_server_listens_everywhere() -> None:
    keys = ("long-secret",)
    with bind(ServeConfig(host="0.0.0.0", port=0, api_keys=keys)) as bound:
        assert url_of(bound).startswith("http://127.0.0.1:")
    with bind(ServeConfig(host="::1", port=0)) as bound:
        assert url_of(bound).startswith("http://[::1]:")


def _until_draining(url: str) -> None:
    deadline = time.monotonic() + 10
    while httpx2.get(f"{url}/health").status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
