"""`codegeex bench editor` against our server, and what its rows say of given times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codegeex.bench.contenders import Weights
from codegeex.bench.leaving import Left
from codegeex.bench.measure import WAYS, Measured, Measurements
from codegeex.bench.plan import Plan
from codegeex.bench.samples import Sample
from codegeex.bench.table import as_result, as_table, rows_of
from codegeex.cli import main
from codegeex.testing import tiny_code_model
from glm_core.checkpoint.pretrained import save_pretrained


def _samples(scale: float, written: int) -> list[Sample]:
    return [
        Sample(number, keystroke, scale * (keystroke + 1) / 1e3, scale / 2e3, 100, 99, written)
        for number in (1, 2)
        for keystroke in range(20)
    ]


def _found(reason: str = "") -> Measurements:
    plan = Plan(model="nano-code", edits=20, rounds=2, file=Path("typed.py"))
    measured = [
        Measured("ours", WAYS[0], _samples(2.0, 16)),
        Measured("llama.cpp", WAYS[0], [] if reason else _samples(3.0, 17)),
    ]
    return Measurements(
        plan,
        Weights("int4 groups of 32", "Q4_0", 512),
        measured,
        {"llama.cpp": reason} if reason else {},
        {"ours": {}, "llama.cpp": {"weights": "Q4_0", "version": "version: 7"}},
        [Left(0, 0.001), Left(2, 0.002)],
        [1.0],
    )


def test_rows_compare_round_by_round_and_stand_beside_the_goals() -> None:
    found = _found()
    ours, llama = rows_of(found)
    assert (ours.p50_ms, ours.p95_ms, ours.jump_p50_ms, ours.second_p50_ms) == (20, 38, 2, 4)
    assert (ours.first_p50_ms, ours.reused, ours.written) == (1, 0.99, 16)
    assert llama.ratio == pytest.approx(1.5) and llama.fair_ratio == 0.0  # it wrote more
    text = as_table(found, [ours, llama])
    assert "p50: 20 ms; goal 60 ms, met" in text
    assert "llama.cpp / ours at p50: 1.5; goal 1.1, met" in text
    assert "tokens written after a client left: 2; goal 1, missed" in text
    assert "2 clients left in the middle: 1.0 more tokens were written, at most 2" in text
    result = as_result(found, [ours, llama], "abc", None)
    assert result["rows"][1]["commit"] == "abc" and len(result["goals"]) == 5


def test_reason_is_told_when_a_peer_cannot_run() -> None:
    found = _found(reason="it is not set up")
    text = as_table(found, rows_of(found))
    assert "llama.cpp  could not run: it is not set up" in text and "goal 1.1" not in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--against", "tabby"], "--against names 'tabby': choose from llama.cpp"),
        (["--edits", "0"], "--edits is 0: it must be at least 1"),
        (["--file", "/nowhere.py"], "--file /nowhere.py cannot be read (No such file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["bench", "editor", *flags]) != 0
    assert message in capsys.readouterr().err


def test_a_server_is_measured_when_the_command_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = tiny_code_model()
    save_pretrained(model, tokenizer, tmp_path / "tiny")
    table = tmp_path / "editor.csv"
    command = ["bench", "editor", "--model", str(tmp_path / "tiny"), "--edits", "9", "--rounds"]
    assert main([*command, "1", "--threads", "1", "--csv", str(table), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["rows"]
    assert [row["asked"] for row in rows] == ["infill", "infill, streamed", "segments"]
    assert all(row["p50_ms"] > 0 and row["prompt"] > 50 for row in rows)
    assert rows[0]["second_reused"] > 0.9 and result["left"]
    assert len(table.read_text().splitlines()) == 4
