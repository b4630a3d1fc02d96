"""Results in a file that a later run goes on with."""

import json
from dataclasses import replace

import pytest

from codegeex.evaluate.config import ExecutionConfig
from codegeex.evaluate.report import report, report_text
from codegeex.evaluate.results import ResultsFile, read_results, results_path
from codegeex.evaluate.verdict import Verdict
from codegeex.evaluate.work import Result, Work

CONFIG = ExecutionConfig()
PROBLEMS = {("go", ""): 2}


def works(*sources):
    return [
        Work(task_id=f"Go/{number % 2}", number=number // 2, language="go", source=source)
        for number, source in enumerate(sources)
    ]


def results(found, verdict=Verdict.passed):
    return [
        Result(
            task_id=work.task_id,
            number=work.number,
            language="go",
            verdict=verdict,
            isolation="bubblewrap",
        )
        for work in found
    ]


def test_run_goes_on_when_it_was_broken_off(tmp_path):
    path, all_works = tmp_path / "r.jsonl", works("a", "b", "c", "d")
    first = ResultsFile(path, all_works, CONFIG, PROBLEMS)
    assert first.missing == all_works
    list(first.add(results(all_works[:2])))
    with path.open("a") as file:
        file.write('{"task_id": "Go/0", "num')  # as a kill leaves it
    second = ResultsFile(path, all_works, CONFIG, PROBLEMS)
    assert second.missing == all_works[2:]
    list(second.add(results(second.missing, Verdict.timeout)))
    assert [row.result.verdict for row in read_results(path)] == ["passed"] * 2 + ["timeout"] * 2


def test_result_is_dropped_when_its_program_has_changed(tmp_path):
    path = tmp_path / "r.jsonl"
    list(ResultsFile(path, works("a", "b"), CONFIG, PROBLEMS).add(results(works("a", "b"))))
    changed = ResultsFile(path, works("a", "B"), CONFIG, PROBLEMS)
    assert changed.missing == works("a", "B")[1:]
    assert len(path.read_text().splitlines()) == 1


def test_result_is_dropped_when_the_limits_have_changed(tmp_path):
    path = tmp_path / "r.jsonl"
    list(ResultsFile(path, works("a"), CONFIG, PROBLEMS).add(results(works("a"))))
    more_workers = replace(CONFIG, workers=7, sandbox="unshare")
    assert ResultsFile(path, works("a"), more_workers, PROBLEMS).missing == []
    assert ResultsFile(path, works("a"), replace(CONFIG, cpu_s=9), PROBLEMS).missing


def test_skipped_program_is_tried_again(tmp_path):
    path = tmp_path / "r.jsonl"
    skipped = results(works("a"), Verdict.skipped)
    list(ResultsFile(path, works("a"), CONFIG, PROBLEMS).add(skipped))
    assert ResultsFile(path, works("a"), CONFIG, PROBLEMS).missing == works("a")


def test_file_is_refused_when_it_holds_something_else(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"task_id": "Go/0", "generation": "a"}\n')
    with pytest.raises(ValueError, match="line 1 is no result of `codegeex evaluate execute`"):
        read_results(path)
    assert path.read_text().startswith('{"task_id"')


def test_row_says_what_kept_the_program_in(tmp_path):
    path = tmp_path / "r.jsonl"
    list(ResultsFile(path, works("a"), CONFIG, PROBLEMS).add(results(works("a"))))
    row = json.loads(path.read_text())
    assert row["isolation"] == "bubblewrap"
    assert (row["passed"], row["verdict"], row["num_problems"]) == (True, "passed", 2)


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        ("s.jsonl", "s.results.jsonl"),
        ("a.b.jsonl.gz", "a.b.results.jsonl"),
        ("s", "s.results.jsonl"),
    ],
)
def test_results_go_beside_the_samples_when_nothing_else_is_said(tmp_path, samples, wanted):
    assert results_path(tmp_path / samples) == tmp_path / wanted


def test_report_counts_each_part_by_itself(tmp_path):
    path, some = tmp_path / "r.jsonl", works("a", "b", "c", "d")
    file = ResultsFile(path, some, CONFIG, PROBLEMS)
    list(file.add(results(some[:1]) + results(some[1:], Verdict.timeout)))
    summary = report(file.rows.values(), (1, 2, 3))[0]
    assert summary["pass_at_k"] == {"pass@1": 0.25, "pass@2": 0.5}
    assert summary["verdicts"] == {"passed": 1, "timeout": 3}
    text = report_text([summary])
    assert "Go  2/2       4        1       pass@1 25.0 %, pass@2 50.0 %  3 timeout" in text
    assert text.endswith("kept in by bubblewrap")
    assert report_text([]) == "no results"
