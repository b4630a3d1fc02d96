"""Samples by a tiny model with random weights."""

import json

import pytest

from codegeex.evaluate.generate import Generation, generation_tasks, translation_tasks
from codegeex.evaluate.problems import shipped_problems
from codegeex.evaluate.prompts import PromptStyle
from codegeex.testing import tiny_code_model
from glm_core.infer import SamplingConfig
from glm_core.infer.engine import Engine, EngineConfig

SAMPLING = SamplingConfig(max_new_tokens=12, temperature=0.8, top_p=0.95, seed=5)


@pytest.fixture(scope="module")
def engine():
    with Engine(*tiny_code_model(context=1024), config=EngineConfig(max_running=4)) as open_engine:
        yield open_engine


@pytest.fixture(scope="module")
def tasks():
    problems = list(shipped_problems("javascript").items())[:2]
    return generation_tasks(dict(problems), PromptStyle.stripped)


def write(engine, tasks, path, num_samples=3, sampling=SAMPLING, model="tiny"):
    generation = Generation(engine, tasks, num_samples, sampling, path, model)
    return generation, list(generation.run())


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_problem_has_its_samples_when_the_run_ends(engine, tasks, tmp_path):
    generation, written = write(engine, tasks, tmp_path / "s.jsonl")
    assert len(written) == generation.num_samples == 6
    found = rows(tmp_path / "s.jsonl")
    wanted = [(f"JavaScript/{task}", number) for task in range(2) for number in range(3)]
    assert [(row["task_id"], row["number"]) for row in found] == wanted
    assert len({row["generation"] for row in found}) > 1
    assert all("prompt" not in row and row["tokens"] <= 12 for row in found)


def test_samples_are_the_same_when_a_broken_run_goes_on(engine, tasks, tmp_path):
    write(engine, tasks, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_text()
    path = tmp_path / "broken.jsonl"
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])
    generation, written = write(engine, tasks, path)
    assert len(written) == 4
    assert path.read_text() == whole
    _, nothing = write(engine, tasks, path)
    assert nothing == []
    _, more = write(engine, tasks, path, num_samples=4)
    assert [answer.question.number for answer in more] == [3, 3]


def test_loop_can_be_left_when_samples_are_under_way(engine, tasks, tmp_path):
    generation = Generation(engine, tasks, 3, SAMPLING, tmp_path / "s.jsonl", "tiny")
    running = generation.run()
    next(running)
    running.close()
    assert len(rows(tmp_path / "s.jsonl")) == 1
    assert len(write(engine, tasks, tmp_path / "s.jsonl")[1]) == 5


@pytest.mark.parametrize(
    "changes",
    [{"model": "other"}, {"sampling": SamplingConfig(max_new_tokens=12)}],
)
def test_file_is_refused_when_its_samples_are_of_other_settings(engine, tasks, tmp_path, changes):
    path = tmp_path / "s.jsonl"
    write(engine, tasks, path, num_samples=1)
    with pytest.raises(ValueError, match="line 1 is a sample of another model or of other setti"):
        write(engine, tasks, path, **changes)


def test_file_is_refused_when_others_wrote_it(engine, tasks, tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"task_id": "JavaScript/0", "generation": ""}\n')
    with pytest.raises(ValueError, match="line 1 was not written by this command"):
        write(engine, tasks, path)


def test_file_holds_two_languages_when_both_are_written_into_it(engine, tasks, tmp_path):
    write(engine, tasks, tmp_path / "s.jsonl", num_samples=1)
    few = dict(list(shipped_problems("go").items())[:1])
    go = generation_tasks(few, PromptStyle.plain)
    write(engine, go, tmp_path / "s.jsonl", num_samples=1)
    assert [row["task_id"] for row in rows(tmp_path / "s.jsonl")][2:] == ["Go/0"]


def test_prompt_is_refused_when_the_model_cannot_hold_it(tasks, tmp_path):
    with Engine(*tiny_code_model(context=64)) as small:
        message = "JavaScript/0 is too long for this model .*leave its language away"
        with pytest.raises(ValueError, match=message):
            Generation(small, tasks, 1, SAMPLING, tmp_path / "s.jsonl", "tiny")


def test_translation_says_what_it_was_made_of(engine, tmp_path):
    few = dict(list(shipped_problems("go").items())[4:5])
    tasks = translation_tasks(shipped_problems("python"), few)
    assert tasks[0].prompt.startswith("code translation\nPython:\ndef mirror_steps")
    assert tasks[0].prompt.endswith("Go:\n\nfunc MirrorSteps(number int64) int {\n")
    write(engine, tasks, tmp_path / "s.jsonl", num_samples=1)
    row = rows(tmp_path / "s.jsonl")[0]
    assert (row["task_id"], row["translated_from"]) == ("Go/4", "Python")


def test_translation_is_refused_when_the_files_have_nothing_in_common():
    sources, targets = shipped_problems("python"), shipped_problems("go")
    first, others = dict(list(sources.items())[:1]), dict(list(targets.items())[1:])
    with pytest.raises(ValueError, match="have no problem in common"):
        translation_tasks(first, others)
