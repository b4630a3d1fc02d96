import gzip
import json

import pytest

from codegeex.data.contamination import load_benchmarks

PROMPT = '''from typing import List


def has_close_elements(numbers: List[float], threshold: float) -> bool:
    """ Check if in given list of numbers, are any two numbers closer to each other than
    given threshold.
    >>> has_close_elements([1.0, 2.0, 3.0], 0.5)
    False
    """
'''
SOLUTION = """    for idx, elem in enumerate(numbers):
        for idx2, elem2 in enumerate(numbers):
            if idx != idx2:
                distance = abs(elem - elem2)
                if distance < threshold:
                    return True

    return False
"""
OTHER = '''def smallest(values):
    """ Return the least of the values of a list of numbers, or None if there is no value in it.
    """
    return min(values, default=None)
'''


@pytest.fixture
def benchmarks(tmp_path):
    path = tmp_path / "humaneval.jsonl"
    problem = {"task_id": "Python/0", "prompt": PROMPT, "canonical_solution": SOLUTION}
    path.write_text(json.dumps(problem) + "\n\n", encoding="utf-8")
    return load_benchmarks((str(path),))


@pytest.mark.parametrize(
    "text",
    [
        PROMPT + SOLUTION,
        OTHER * 20 + PROMPT + "    pass\n" + OTHER * 20,
        OTHER + SOLUTION.replace("    ", "\t") + OTHER,
        (PROMPT + SOLUTION).replace("\n", "\n# "),
    ],
)
def test_problem_is_found_when_a_text_holds_it(benchmarks, text):
    assert benchmarks.problem_in(text) == "Python/0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        OTHER * 10,
        "\n".join(PROMPT.splitlines()[:4]),
        SOLUTION.replace("elem", "item").replace("idx", "place"),
    ],
)
def test_nothing_is_found_when_a_text_only_resembles_it(benchmarks, text):
    assert benchmarks.problem_in(text) == ""


def test_short_solutions_are_not_looked_for_when_any_code_has_them(tmp_path):
    path = tmp_path / "b.jsonl.gz"
    row = {"task_id": "x", "prompt": PROMPT, "canonical_solution": "    return len(set(a))\n"}
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    benchmarks = load_benchmarks((str(path),))
    assert list(benchmarks.names) == ["x"]
    assert benchmarks.problem_in("def f(a):\n    return len(set(a))\n") == ""
    assert benchmarks.problem_in(PROMPT) == "x"


def test_nearest_problem_is_told_when_two_share_words(tmp_path):
    path = tmp_path / "two.jsonl"
    rows = [{"task_id": name, "prompt": text} for name, text in (("a", PROMPT), ("b", OTHER))]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    benchmarks = load_benchmarks((str(path),))
    assert [benchmarks.problem_in(text) for text in (OTHER, PROMPT)] == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"--decontaminate .*f\.jsonl:1 is not valid JSON: name a file with one problem"),
        (b"{}", r"f\.jsonl:1 has no field prompt or canonical_solution: .* HumanEval-X's format"),
        (b"\n[1]", r"f\.jsonl:2 has no field prompt"),
    ],
)
def test_file_is_refused_when_it_holds_no_problems(tmp_path, content, message):
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_benchmarks((str(tmp_path / "f.jsonl"),))


def test_files_are_found_when_a_folder_is_named(tmp_path):
    row = json.dumps({"task_id": "a", "prompt": PROMPT}).encode()
    (tmp_path / "python" / "data").mkdir(parents=True)
    (tmp_path / "python" / "data" / "b.jsonl.gz").write_bytes(gzip.compress(row))
    (tmp_path / "a.jsonl").write_bytes(row)
    assert list(load_benchmarks((str(tmp_path),)).names) == ["a", "a"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none holds no .jsonl or .jsonl.gz file: name HumanEval"):
        load_benchmarks((str(tmp_path / "none"),))


def test_file_is_refused_when_it_cannot_be_read(tmp_path):
    (tmp_path / "f.jsonl.gz").write_bytes(b"no gzip")
    for name in ("f.jsonl.gz", "missing.jsonl"):
        with pytest.raises(ValueError, match="cannot be read .*: name HumanEval-X's .jsonl"):
            load_benchmarks((str(tmp_path / name),))
