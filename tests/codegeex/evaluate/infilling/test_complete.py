"""A tiny model with random weights fills holes."""

import json

import pytest

from codegeex.evaluate.infilling.complete import Filling
from codegeex.evaluate.infilling.load import read_holes
from codegeex.fim import FORMATS
from codegeex.testing import tiny_code_model
from glm_core.infer import SamplingConfig
from glm_core.infer.engine import Engine, EngineConfig

SAMPLING = SamplingConfig(max_new_tokens=8, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def engine():
    with Engine(*tiny_code_model(context=256), config=EngineConfig(max_running=4)) as open_engine:
        yield open_engine


def fill(engine, tasks, path, format="spm", **fields):
    known = None if format == "l2r" else FORMATS[format]
    filling = Filling(engine, known, tasks, 2, SAMPLING, path, "tiny", **fields)
    written = list(filling.run())
    return filling, written, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", ["spm", "psm", "l2r"])
def test_every_hole_has_its_completions_when_a_format_is_chosen(
    engine, humaneval_file, tmp_path, format
):
    tasks = read_holes([humaneval_file])
    filling, written, rows = fill(engine, tasks, tmp_path / "s.jsonl", format)
    assert filling.num_samples == len(written) == 6
    assert [row["task_id"] for row in rows] == [task for task in tasks for _ in range(2)]
    assert all(isinstance(row["completion"], str) for row in rows)
    assert all(row["completion"].count("\n") <= 1 for row in rows[:2])  # single lines are cut


def test_completions_are_the_same_when_a_broken_run_goes_on(engine, humaneval_file, tmp_path):
    tasks = read_holes([humaneval_file])
    _, _, whole = fill(engine, tasks, tmp_path / "whole.jsonl")
    path = tmp_path / "s.jsonl"
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:9])
    _, written, rows = fill(engine, tasks, path)
    assert (len(written), rows) == (5, whole)


def test_file_is_refused_when_it_was_written_in_another_format(engine, humaneval_file, tmp_path):
    tasks = read_holes([humaneval_file])
    fill(engine, tasks, tmp_path / "s.jsonl", "spm")
    for format, fields in (("psm", {}), ("spm", {"heals": False})):
        with pytest.raises(ValueError, match="is a sample of another model or of other settings"):
            fill(engine, tasks, tmp_path / "s.jsonl", format, **fields)


def test_half_a_word_is_completed_and_not_repeated_when_a_span_cuts_it(
    engine, humaneval_file, tmp_path
):
    """The hole stands behind `max(num`: the token is taken back, and is no part of the text."""
    tasks = read_holes([humaneval_file])
    span = {name: task for name, task in tasks.items() if task.suite == "random-span"}
    filling = Filling(engine, FORMATS["spm"], span, 1, SAMPLING, tmp_path / "a.jsonl", "tiny")
    question = filling._question(next(iter(span.values())), 0)
    assert question.begins and "max(num".endswith(question.begins)
    _, written, rows = fill(engine, span, tmp_path / "s.jsonl")
    assert rows[0]["completion"] == written[0].text
