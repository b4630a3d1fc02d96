"""Files of samples as programs."""

import json

import pytest

from codegeex.evaluate.humaneval_x import (
    ground_truth,
    load_problems,
    negative_controls,
    sample_works,
)
from codegeex.evaluate.problems import shipped_problems
from codegeex.evaluate.samples import read_samples


def samples(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_samples(path))


def test_samples_are_read_when_the_text_has_either_name(tmp_path):
    rows = [{"task_id": "Go/0", "generation": "a"}, {"task_id": "Go/0", "completion": "b"}]
    found = samples(tmp_path / "s.jsonl", *rows, {"task_id": "Go/1", "generation": ""})
    assert [(one.task_id, one.number, one.text) for one in found] == [
        ("Go/0", 0, "a"),
        ("Go/0", 1, "b"),
        ("Go/1", 0, ""),
    ]


def test_sample_is_refused_when_it_has_no_text(tmp_path):
    with pytest.raises(ValueError, match="line 1 has neither 'generation' nor 'completion'"):
        samples(tmp_path / "s.jsonl", {"task_id": "Go/0", "output": "a"})
    with pytest.raises(ValueError, match="line 1: 'generation' is 3, and must be a text"):
        samples(tmp_path / "s.jsonl", {"task_id": "Go/0", "generation": 3})


def test_samples_keep_their_numbers_when_many_answer_one_problem(tmp_path):
    rows = [{"task_id": "Rust/0", "generation": f"    {n}\n}}"} for n in range(3)]
    works = sample_works(load_problems([], []), samples(tmp_path / "s.jsonl", *rows))
    assert [(work.task_id, work.number) for work in works] == [("Rust/0", n) for n in range(3)]
    assert len({work.source for work in works}) == 3


def test_translation_is_told_by_the_sample_and_not_by_the_files_name(tmp_path):
    """The original looks for `-to-` in the name, which its own script never writes there."""
    row = {"task_id": "Go/4", "generation": "    return 7\n}\n"}
    problems = load_problems([], [])
    named = samples(tmp_path / "python-to-go-samples.jsonl", row)
    assert "mirror image" in sample_works(problems, named)[0].source
    told = samples(tmp_path / "samples.jsonl", row | {"translated_from": "Python"})
    work = sample_works(problems, told)[0]
    assert "mirror image" not in work.source
    assert (work.task_id, work.language) == ("Go/4", "go")


def test_translation_finds_its_target_when_the_task_names_the_source(tmp_path):
    row = {"task_id": "Python/4", "generation": "    return 7;\n}\n"}
    found = samples(tmp_path / "s.jsonl", row)
    work = sample_works(load_problems([], ["cpp"]), found, translated_to="C++")[0]
    assert (work.task_id, work.language) == ("CPP/4", "c++")
    assert "code translation" not in work.source


def test_sample_is_refused_when_its_problem_is_missing(tmp_path):
    found = samples(tmp_path / "s.jsonl", {"task_id": "Python/0", "generation": ""})
    message = "answer 'Python/0', which is no problem of the given files \\(of Go\\).*translated-to"
    with pytest.raises(ValueError, match=message):
        sample_works(load_problems([], ["go"]), found)


def test_answer_loses_what_stands_behind_it_when_it_is_to_be_cleaned(tmp_path):
    row = {"task_id": "JavaScript/0", "generation": "  return 1\n}\nfor (;;) {}"}
    found = samples(tmp_path / "s.jsonl", row)
    problems = load_problems([], ["js"])
    assert "for (;;)" in sample_works(problems, found)[0].source
    assert "for (;;)" not in sample_works(problems, found, clean=True)[0].source


def test_problems_are_of_the_languages_that_are_named(tmp_path):
    assert {problem.language for problem in load_problems([], ["py", "Rust"]).values()} == {
        "python",
        "rust",
    }
    with pytest.raises(ValueError, match="'cobol' is not in HumanEval-X: choose from pyth"):
        load_problems([], ["cobol"])
    with pytest.raises(ValueError, match="language 'klingon' is unknown"):
        load_problems([], ["klingon"])


def test_problems_are_refused_when_two_files_hold_the_same(tmp_path):
    row = {"task_id": "Go/0", "prompt": "", "test": "", "declaration": ""}
    path = tmp_path / "go.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="problem 'Go/0' is in two of the files"):
        load_problems([path, path], [])
    with pytest.raises(ValueError, match="no problem is in rust: give other files"):
        load_problems([path], ["rust"])


def test_controls_differ_from_the_solution_when_they_are_made():
    problems = shipped_problems("c++")
    solved = {work.source for work in ground_truth(problems)}
    wrong = {work.source for work in negative_controls(problems)}
    assert len(solved) == 6 and len(wrong) == 12 and not solved & wrong
