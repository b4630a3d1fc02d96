"""Files of human-eval-infilling and SAFIM: read, judged and run."""

import json
from pathlib import Path

import pytest

from codegeex.evaluate.infilling.judge import closeness, count_by_part, judge
from codegeex.evaluate.infilling.load import is_infilling, read_holes
from codegeex.evaluate.infilling.safim import says_the_same
from codegeex.evaluate.samples import Sample
from codegeex.evaluate.verdict import Verdict
from codegeex.hole import Mode


def samples(tasks, change=str):
    return [
        Sample(task_id=task_id, number=0, text=change(task.expected))
        for task_id, task in tasks.items()
    ]


def run(executor, judged):
    """Verdicts of all samples: those that are known, and those of programs."""
    works = [work for work in judged.works if (work.task_id, work.number) not in judged.known]
    results = [*judged.known.values(), *executor.run_all(works)]
    return {result.task_id: result.verdict for result in results}


def test_lines_and_spans_are_told_apart_when_the_task_names_them(humaneval_file):
    tasks = read_holes([humaneval_file])
    assert [task.suite for task in tasks.values()] == ["single-line", "multi-line", "random-span"]
    line, lines, span = tasks.values()
    assert (line.hole.mode, lines.hole.mode) == (Mode.line, Mode.block)
    assert line.truncate("    x = 1\n    y = 2\n") == "    x = 1\n"
    assert line.truncate("\n    x = 1") == "\n    x = 1\n"
    assert span.truncate("a\nb") == "a\nb"
    assert line.is_over("    x = 1\n", "\n") and not lines.is_over("x\n\n\ny", "\n")
    assert count_by_part(tasks)["python", "random-span"] == 1


def test_holes_are_filled_rightly_when_what_stood_there_is_put_back(humaneval_file, executor):
    tasks = read_holes([humaneval_file])
    judged = judge(tasks, samples(tasks))
    assert {one.verdict for one in judged.known.values()} == {Verdict.passed}
    assert set(run(executor, _unknown(judged)).values()) == {Verdict.passed}
    wrong = judge(tasks, samples(tasks, lambda text: "    pass\n"))
    assert not wrong.known
    assert Verdict.passed not in set(run(executor, wrong).values())
    other = [Sample(task_id=next(iter(tasks)), number=0, text="    low, high = sorted(numbers)\n")]
    assert set(run(executor, judge(tasks, other)).values()) == {Verdict.passed}


def _unknown(judged):
    """The same, with everything to be run."""
    return type(judged)(works=judged.works, known={})


def test_tests_come_from_humaneval_when_the_holes_have_none(humaneval_file, tmp_path):
    row = json.loads(humaneval_file.read_text().splitlines()[0])
    tests = tmp_path / "HumanEval.jsonl"
    known = {"task_id": "HumanEval/0", "test": row.pop("test"), "entry_point": "spread"}
    tests.write_text(json.dumps(known) + "\n")
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="line 1: 'SingleLine.*' has no tests: give.*--tests"):
        read_holes([bare])
    task = next(iter(read_holes([bare], tests).values()))
    assert "check(spread)" in task.work("", 0).source


def test_kind_of_hole_is_told_by_its_task_when_files_are_of_safim(safim_files):
    tasks = read_holes(list(safim_files.values()))
    assert [task.suite for task in tasks.values()] == ["block"] * 3 + ["control"] * 3 + ["api"]
    assert [task.hole.language for task in tasks.values()][:3] == ["python", "c++", "java"]
    first = next(iter(tasks.values()))
    assert first.hole.prefix.startswith("Reads two numbers")
    assert "TODO" not in first.hole.prefix + first.hole.suffix
    assert first.work("x", 0).source.startswith("count = int(input())")
    assert len(first.work("x", 0).examples) == 2


def test_safim_is_judged_by_its_examples_when_it_has_some(safim_files, executor, tools):
    for language in ("c++", "java"):
        tools(language)
    tasks = read_holes([safim_files["block"], safim_files["control"]])
    right = judge(tasks, samples(tasks))
    assert {one.stage for one in right.known.values()} == {"match"}
    assert set(run(executor, _unknown(right)).values()) == {Verdict.passed}
    wrong = judge(tasks, samples(tasks, lambda text: text.replace("+", "-").replace("count", "0")))
    assert not wrong.known
    assert Verdict.passed not in set(run(executor, wrong).values())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("f(1, b=2, c=3)", "f( 1, c=3, b=2 )", True),
        ("f(1, b=2)", "f(1, b=3)", False),
        ("f(1, 2)", "f(2, 1)", False),
        ("f(1)", "g(1)", False),
        ("f(1", "f(1", True),
        ("x + 1", "1 + x", False),
    ],
)
def test_calls_are_the_same_when_only_blanks_and_order_of_names_differ(one, other, same):
    assert says_the_same(one, "python", other) is same
    assert not says_the_same("f(b=1, c=2)", "java", "f(c=2, b=1)")


def test_api_holes_are_known_without_running_anything(safim_files):
    tasks = read_holes([safim_files["api"]])
    swapped = "np.full((3, 4), 1.0, order='C', dtype=float)"
    right = judge(tasks, samples(tasks, lambda text: swapped))
    wrong = judge(tasks, samples(tasks, lambda text: "np.ones((3, 4))"))
    assert [one.verdict for one in right.known.values()] == [Verdict.passed]
    assert [one.verdict for one in wrong.known.values()] == [Verdict.wrong_answer]


def test_closeness_counts_matches_and_alike_texts(humaneval_file):
    tasks = read_holes([humaneval_file])
    found = closeness(tasks, samples(tasks, lambda text: text if "high" in text else "    pass"))
    assert [one["exact_match"] for one in found] == [1.0, 0.0, 0.0]
    assert found[0]["edit_similarity"] == 1.0
    assert 0 < found[2]["edit_similarity"] < 0.5


def test_sample_is_refused_when_its_hole_is_unknown(humaneval_file):
    with pytest.raises(ValueError, match="fill 'nowhere', which is no hole of the given files"):
        judge(read_holes([humaneval_file]), [Sample(task_id="nowhere", number=0, text="")])


def test_file_is_refused_when_it_is_no_benchmark_with_holes(humaneval_file, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"task_id": "Go/0", "prompt": ""}\n')
    assert is_infilling(humaneval_file) and not is_infilling(other)
    with pytest.raises(ValueError, match="other.jsonl has no holes: its lines must have prompt"):
        read_holes([other])
    with pytest.raises(ValueError, match="is in two of the files: give each file once"):
        read_holes([humaneval_file, humaneval_file])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "x", "name": "odd.jsonl"}, "neither task_id 'x' nor the file's name begins"),
        ({"eval_prompt": "none"}, "must have one '{{completion}}', and has 0"),
        ({"prompt": "none"}, "must have one '# TODO: Your code here', and has 0"),
        ({"unit_tests": "[{]"}, "unit_tests is no JSON"),
        ({"unit_tests": [{"input": "1"}]}, "unit_tests must be a list of objects with input and"),
        ({"lang": "klingon"}, "language 'klingon' is unknown"),
    ],
)
def test_hole_of_safim_is_refused_when_a_field_is_wrong(safim_files, change, message):
    row = json.loads(safim_files["block"].read_text().splitlines()[0])
    name = change.pop("name", "block.jsonl")
    path = Path(safim_files["block"]).with_name(name)
    path.write_text(json.dumps(row | change) + "\n")
    with pytest.raises(ValueError, match=message):
        read_holes([path])
