"""`glm bench serve`: who is asked what, and what the rows say; rates are given."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from glm_core import cli
from glm_core.bench.contender import Contender
from glm_core.bench.serve import measure as module
from glm_core.bench.serve.contenders import Plan
from glm_core.bench.serve.measure import Measurement, ServeRow, measure, percentile
from glm_core.bench.serve.servers import ServerProcess, free_port, llama_command, our_server
from glm_core.bench.serve.stream_client import Load, Stream, run_load
from glm_core.bench.serve.table import as_result, as_table
from glm_core.bench.serve.work import bodies, longest, prompts

SCRIPT = """
import json, sys
print(json.dumps({"weights": "int4"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"rate": 10.0}), flush=True)
"""
RATES = {"http://ours": 40.0, "http://llama.cpp": 20.0}


class Given(ServerProcess):
    """A server that is no process."""

    def start(self) -> None:
        self.url, self.about = f"http://{self.name}", {"weights": "int4", "version": "v1"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[bytes], int]]:
    """Loads are not run, but noted; every server has a rate of its own."""
    noted = []

    def given_load(url: str, asked: Sequence[bytes], concurrency: int) -> Load:
        noted.append((url, list(asked), concurrency))
        content = bytearray(b'HTTP/1.1 200 OK "completion_tokens": 8 data: [DONE]')
        streams = [Stream(0.0, [0.5, 0.6, 0.8], content) for _ in asked]
        return Load(8 * len(asked) / RATES[url], streams)

    monkeypatch.setattr(module, "run_load", given_load)
    return noted


def run(reason: str = "") -> list[ServeRow]:
    plan = Plan(shape="10m", layers=1, streams=(8, 32), rounds=2, tokens=8, threads=1)
    llama = Given("llama.cpp", [], lambda tokens: {"ignore_eos": True}, reason=reason)
    servers = [Given("ours", [], lambda tokens: {"min_tokens": tokens}), llama]
    sequential = Contender({"contender": "sequential"}, [sys.executable, "-c", SCRIPT])
    return Measurement(plan, servers, [sequential]).run()


def test_rows_compare_round_by_round_when_all_have_run(
    asked: list[tuple[str, list[bytes], int]],
) -> None:
    rows = run()
    found = {(row.contender, row.streams): (row.tokens_per_second, row.ratio) for row in rows}
    assert found == {
        ("ours", 8): (40.0, 1.0),
        ("ours", 32): (40.0, 1.0),
        ("llama.cpp", 8): (20.0, 2.0),
        ("llama.cpp", 32): (20.0, 2.0),
        ("sequential", 8): (10.0, 4.0),
        ("sequential", 32): (10.0, 4.0),
    }
    ours = rows[0]
    assert (ours.first_token_p50_ms, ours.requests, ours.rounds) == (500.0, 16, 2)
    assert ours.inter_token_p50_ms == pytest.approx(100.0)
    assert ours.inter_token_p99_ms == pytest.approx(200.0)
    assert rows[-1].first_token_p50_ms == 0.0


def test_servers_get_the_same_prompts_by_turns_and_none_twice(
    asked: list[tuple[str, list[bytes], int]],
) -> None:
    run()
    urls = [url for url, _, _ in asked]
    assert urls == ["http://llama.cpp", "http://ours"] + (
        ["http://ours", "http://llama.cpp"] * 2 + ["http://llama.cpp", "http://ours"] * 2
    )
    sent = [[json.loads(body)["prompt"] for body in given] for _, given, _ in asked]
    assert sent[0::2] == sent[1::2]
    different = {tuple(prompt) for given in sent[0::2] for prompt in given}
    assert len(different) == sum(len(given) for given in sent[0::2])
    assert json.loads(asked[2][1][0])["min_tokens"] == 8


def test_goals_stand_beside_what_was_reached(asked: list[tuple[str, list[bytes], int]]) -> None:
    rows = run()
    text = as_table(rows)
    assert "ours / llama.cpp at 8 streams: 2.00; goal 1.1, met" in text
    assert "ours / sequential at 32 streams: 4.00; goal 3.0, met" in text
    result = as_result(rows, "abc", Path("serve.csv"))
    assert result["ratios"]["llama.cpp"] == {"8": 2.0, "32": 2.0}
    assert result["goals"][0] == {"contender": "llama.cpp", "streams": 8, "goal": 1.1, "ratio": 2.0}
    assert result["rows"][0]["commit"] == "abc"


def test_reason_is_told_once_when_a_server_cannot_run(
    asked: list[tuple[str, list[bytes], int]],
) -> None:
    rows = run(reason="it is not set up")
    text = as_table(rows)
    assert text.count("could not run: it is not set up") == 1 and "goal 1.1" not in text
    assert {url for url, _, _ in asked} == {"http://ours"}


def test_prompts_have_different_lengths_around_the_mean() -> None:
    given = prompts(200, 128, 65024, seed=1)
    lengths = [len(prompt) for prompt in given]
    assert 64 <= min(lengths) < 80 and 176 < max(lengths) <= longest(128) == 192
    assert 118 < sum(lengths) / len(lengths) < 138
    assert len({tuple(prompt[:4]) for prompt in given}) == 200


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentile_is_the_least_that_so_many_do_not_exceed(share: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value
    assert percentile([], share) == 0.0


def test_our_server_streams_every_token_when_it_is_a_process_of_its_own() -> None:
    job = {"shape": "10m", "layers": 1, "bits": 4, "threads": 1, "streams": 2, "tokens": 5}
    server = our_server(job)
    server.start()
    try:
        assert server.about["weights"].startswith("int4") and server.reason == ""
        given = bodies(prompts(3, 8, 8192, seed=0), 5, server.ignores_end(5))
        load = run_load(server.url, given, concurrency=2)
    finally:
        server.close()
    assert [stream.num_tokens for stream in load.streams] == [5, 5, 5]


def test_reason_is_noted_when_a_server_ends_at_once() -> None:
    server = ServerProcess("x", [sys.executable, "-c", "raise SystemExit(3)"], lambda tokens: {})
    server.start()
    assert server.reason == "its server ended with status 3"


def test_llama_cpp_gets_a_slot_for_every_stream() -> None:
    job = {"streams": 8, "threads": 2, "port": free_port()}
    text = " ".join(llama_command(Path("llama-server"), Path("m.gguf"), job, context=256))
    assert "--parallel 8 " in text and "--ctx-size 2048 " in text and "--threads-batch 2 " in text


def test_error_names_the_flag_when_a_plan_is_impossible(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="names 'vllm': choose from llama.cpp, transformers"):
        measure(Plan(shape="10m"), ["vllm"])
    with pytest.raises(ValueError, match="--prompt 400 and --tokens 64 need 664 positions: 10m"):
        Plan(shape="10m", prompt=400)
    with pytest.raises(ValueError, match="each must be at least 1"):
        Plan(streams=(0,))
    assert cli.main(["bench", "serve", "--streams", "a"]) == cli.BAD_INPUT
    assert "--streams is 'a': write numbers" in capsys.readouterr().err
