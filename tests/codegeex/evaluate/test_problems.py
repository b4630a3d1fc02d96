"""Problems as the official files have them, and our own."""

import gzip
import json

import pytest

from codegeex.evaluate.problems import language_of, languages, read_problems, shipped_problems

ROW = {
    "task_id": "Rust/3",
    "prompt": "\n/*\nAdds.\n*/\n",
    "canonical_solution": "    a + b\n}\n",
    "test": "#[test]\nfn it() { assert_eq!(add(1, 2), 3); }\n",
    "declaration": "use std::cmp::max;\n\nfn add(a: i32, b: i32) -> i32 {\n",
    "example_test": None,
}


def write(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["rust.jsonl", "humaneval_rust.jsonl.gz"])
def test_problem_has_its_fields_when_the_file_is_official(tmp_path, name):
    problem = read_problems(write(tmp_path / name, ROW))["Rust/3"]
    assert (problem.language, problem.number) == ("rust", "3")
    assert problem.declaration == ROW["declaration"]
    assert problem.imports == problem.test_setup == ""


def test_tests_are_all_of_them_when_there_are_no_example_tests(tmp_path):
    """The original takes a null for tests; problems 38, 41, 50, 83, 84 and 160 have none."""
    rows = [ROW, ROW | {"task_id": "Rust/4", "example_test": ""}]
    rows += [ROW | {"task_id": "Rust/5", "example_test": "short"}]
    problems = read_problems(write(tmp_path / "rust.jsonl", *rows))
    assert problems["Rust/3"].tests(examples_only=True) == ROW["test"]
    assert problems["Rust/4"].tests(examples_only=True) == ROW["test"]
    assert problems["Rust/5"].tests(examples_only=True) == "short"
    assert problems["Rust/5"].tests() == ROW["test"]


def test_tests_are_called_when_the_file_is_humaneval_itself(tmp_path):
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def one():\n",
        "entry_point": "one",
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
    }
    problem = read_problems(write(tmp_path / "HumanEval.jsonl.gz", row))["HumanEval/0"]
    assert problem.language == "python"
    assert problem.declaration == row["prompt"]
    assert problem.test.endswith("check(one)\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "Cobol/1"}, "line 1: task_id 'Cobol/1' names no language of HumanEval-X"),
        ({"prompt": None}, "line 1: 'prompt' is None, and must be a text"),
        ({"test": 5}, "line 1: 'test' is 5, and must be a text"),
    ],
)
def test_file_is_refused_when_a_problem_is_no_problem(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read_problems(write(tmp_path / "p.jsonl", ROW | change))


def test_file_is_refused_when_it_is_empty_or_names_a_task_twice(tmp_path):
    with pytest.raises(ValueError, match="line 2: task_id 'Rust/3' is there twice"):
        read_problems(write(tmp_path / "p.jsonl", ROW, ROW))
    with pytest.raises(ValueError, match="has no problems"):
        read_problems(write(tmp_path / "p.jsonl"))


def test_language_is_told_by_the_task_when_it_is_of_humaneval_x():
    prefixes = ["Python/0", "CPP/0", "Java/0", "JavaScript/0", "Go/0", "Rust/0"]
    assert [language_of(prefix) for prefix in prefixes] == list(languages())


@pytest.mark.parametrize("language", list(languages()))
def test_own_problems_have_the_keys_of_the_official_files_when_they_are_shipped(language):
    problems = shipped_problems(language)
    assert [problem.number for problem in problems.values()] == list("012345")
    without_examples = [problem for problem in problems.values() if not problem.example_test]
    assert len(without_examples) == (6 if language == "rust" else 1)
    for problem in problems.values():
        assert problem.canonical_solution.strip() and problem.test.strip()
        assert bool(problem.test_setup) == (language == "go")
    if language == "go":
        assert [bool(problem.imports) for problem in problems.values()].count(False) == 1
        assert any('"math"' in problem.test_setup for problem in problems.values())
    if language == "rust":
        assert all(problem.declaration.startswith("use ") for problem in problems.values())
