"""The soak: a small one of the real server, and what it says of servers that do wrong."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import pytest

from glm_core.bench.serve.soak import Report, Soak, find_problems, rounded, soak
from glm_core.bench.serve.soak_catalogue import Ask, catalogue, wrong_requests
from glm_core.bench.serve.soak_report import as_result, as_table
from glm_core.bench.serve.soak_server import Held, SoakServer

HELD = Held(running=0, waiting=0, pages=0, tasks=2, threads=9, files=7, resident_mib=600.0)
COUNTERS = Counter(submitted=5, finished=3, cancelled=2)


class Quiet(SoakServer):
    """A server that has nothing to tell."""

    def __init__(self, errors: tuple[str, ...] = ()) -> None:
        self.url, self.told = "", errors

    def errors(self) -> list[str]:
        return list(self.told)

    def is_alive(self) -> bool:
        return not self.told


def test_nothing_is_wrong_when_a_server_is_soaked() -> None:
    report = soak(60)
    assert report.is_good, as_table(report)
    assert sum(report.counts.values()) >= 60
    assert {"answered", "left", "refused"} <= report.counts.keys()
    assert "nothing is wrong" in as_table(report)
    assert as_result(report)["is_good"] and as_result(report)["growth"]["files"] <= 0


def test_catalogue_has_every_kind_and_repeats_itself_when_the_seed_does() -> None:
    asks = catalogue(32, seed=3)
    assert asks == catalogue(32, seed=3) and asks != catalogue(32, seed=4)
    assert set(Counter(ask.kind for ask in asks).values()) == {2}
    assert len({wrong.kind for wrong in wrong_requests()}) == len(wrong_requests())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"pages": 2}, "pages is 2 when nothing is asked: must be 0"),
        ({"running": 1}, "running is 1"),
        ({"tasks": 3}, "tasks grew from 2 to 3"),
        ({"files": 8}, "files grew from 7 to 8"),
        ({"threads": 10}, "threads grew from 9 to 10"),
        ({"resident_mib": 660.0}, "memory grew from 600 to 660 MiB, by more than 5%"),
    ],
)
def test_problem_is_told_when_something_is_left_behind(
    change: dict[str, int], problem: str
) -> None:
    report = Report(1000, held=[HELD, HELD, replace(HELD, **change)], counters=dict(COUNTERS))
    report.counters |= dict.fromkeys(("failed", "timed_out"), 0)
    (told,) = find_problems(report, Quiet())
    assert problem in told
    report.held[-1] = replace(HELD, threads=5, files=6, resident_mib=620.0)
    assert find_problems(report, Quiet()) == []


def test_problem_is_told_when_requests_or_the_server_fail() -> None:
    counters = {**COUNTERS, "submitted": 7, "failed": 1, "timed_out": 0}
    report = Report(10, held=[HELD, HELD], counters=counters)
    assert find_problems(report, Quiet(("KeyError: 1",))) == [
        "its log has an exception: KeyError: 1",
        "its process is gone",
        "7 requests were submitted, but 6 ended",
        "1 requests failed in the engine",
    ]
    report.problems = ["x"]
    assert not report.is_good and "WRONG: x" in as_table(report)


def response(text: str, status: int = 200) -> bytes:
    body = json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]})
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (response("b"), "another answer than alone"),
        (response("a", 500), "answered with 500"),
        (b"", "is lost: ValueError"),
        (response("a")[:-9], "is lost: JSONDecodeError"),
    ],
)
def test_fault_is_told_when_an_answer_is_wrong_or_lost(second: bytes, fault: str) -> None:
    async def serve_and_soak() -> Report:
        answers = iter([response("a"), second])

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(next(answers))
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            quiet = Quiet()
            quiet.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            work = Soak(quiet, [Ask("completion", "/v1/completions", {}, can_stream=False)], 1)
            work._expected[0] = await work._alone(work._asks[0])
            assert work._expected[0] == rounded(((("a",), "stop"),))
            work._shares = {}
            await work._work(iter([0]))
            return work.report

    report = asyncio.run(serve_and_soak())
    assert len(report.faults) == 1 and fault in report.faults[0]
