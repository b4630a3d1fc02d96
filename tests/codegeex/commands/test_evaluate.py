"""`codegeex evaluate` as it is typed."""

import json
from pathlib import Path

import pytest

from codegeex import cli
from codegeex.evaluate.problems import shipped_problems
from codegeex.testing import tiny_code_model
from glm_core.agent.executor import choose
from glm_core.checkpoint.pretrained import save_pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny model of random weights."""
    path = tmp_path_factory.mktemp("model")
    save_pretrained(*tiny_code_model(context=1024), path)
    return str(path)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Two answers to each of two problems: right ones, and one wrong one."""
    problems = list(shipped_problems("python").values())[:2]
    path = tmp_path / "samples.jsonl"
    rows = [
        {"task_id": problem.task_id, "generation": text}
        for problem in problems
        for text in (problem.canonical_solution, problem.canonical_solution)
    ]
    rows[3]["generation"] = "    return 'wrong'\n"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """The official form of the two problems."""
    path = tmp_path / "humaneval_python.jsonl"
    keys = ("task_id", "prompt", "canonical_solution", "test", "declaration", "example_test")
    with path.open("w") as file:
        for problem in list(shipped_problems("python").values())[:2]:
            file.write(json.dumps({key: getattr(problem, key) for key in keys}) + "\n")
    return path


def run(capfd: pytest.CaptureFixture[str], *argv: object) -> tuple[int, dict, str]:
    """Runs the command with --json; returns status, result and what went to stderr."""
    status = cli.main(["evaluate", *map(str, argv), "--json"])
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    return status, json.loads(out), err


def test_what_can_be_evaluated_is_told_when_nothing_is_asked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["evaluate"]) == 0
    text = capfd.readouterr().out
    for words in ("sandbox", "Python 3", "codegeex evaluate check --allow-execution"):
        assert words in text
    status, result, _ = run(capfd)
    assert status == 0
    names = [one["language"] for one in result["languages"]]
    assert names == ["python", "c++", "java", "javascript", "go", "rust"]


def test_samples_are_executed_and_scored_when_execution_is_allowed(
    samples: Path, problems: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["execute", samples, "--problems", problems, "--k", 1, "--k", 2, "--allow-execution"]
    status, result, _ = run(capfd, *argv)
    summary = result["languages"][0]
    assert status == 0
    assert summary["pass_at_k"] == {"pass@1": 0.75, "pass@2": 1.0}
    assert summary["verdicts"] == {"passed": 3, "wrong answer": 1}
    assert summary["isolation"] in ("bubblewrap", "unshare")
    path = Path(result["results"])
    assert path == samples.with_name("samples.results.jsonl")

    status, again, log = run(capfd, *argv)
    assert again == result and "4 of 4 results are in" in log
    status, scored, _ = run(capfd, "score", path, "--k", 2)
    assert scored["languages"][0]["pass_at_k"] == {"pass@2": 1.0}
    assert cli.main(["evaluate", "score", str(path)]) == 0
    assert "pass@1 75.0 %" in capfd.readouterr().out


def test_score_is_left_out_when_problems_have_no_samples(
    samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, result, _ = run(capfd, "execute", samples, "--allow-execution")
    summary = result["languages"][0]
    assert (summary["problems_with_samples"], summary["problems"]) == (2, 6)
    assert summary["pass_at_k"] == {}


@pytest.mark.parametrize("part", ["execute", "check"])
def test_nothing_is_run_when_execution_is_not_allowed(
    part: str, samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = [samples] if part == "execute" else []
    status, result, _ = run(capfd, part, *argv)
    assert status == 2
    assert "say --allow-execution to let it, in a sandbox" in result["error"]
    assert not samples.with_name("samples.results.jsonl").exists()


def test_execution_is_refused_when_there_is_no_sandbox(
    samples: Path,
    problems: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    choose.working_sandbox.cache_clear()
    argv = ["execute", samples, "--problems", problems, "--allow-execution"]
    status, result, _ = run(capfd, *argv)
    assert status == 2 and "apt-get install bubblewrap" in result["error"]
    status, result, log = run(capfd, *argv, "--sandbox", "unsafe-local")
    choose.working_sandbox.cache_clear()
    assert status == 0 and result["languages"][0]["isolation"] == "unsafe-local"
    assert "WARNING: no sandbox: these programs can read and delete all that you can" in log


def test_check_proves_the_evaluation_when_it_is_right(
    problems: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["check", "--problems", problems, "--allow-execution"]
    status, result, _ = run(capfd, *argv)
    assert (status, result["right"]) == (0, True)
    assert result["languages"][0]["solutions_passed"] == 2
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    assert "2/2 passed" in capfd.readouterr().out
    broken = problems.read_text().replace("max((high", "min((high")
    problems.write_text(broken)
    status, result, _ = run(capfd, *argv)
    assert (status, result["right"]) == (1, False)
    assert result["languages"][0]["wrong"][0]["task_id"] == "Python/0"


def test_samples_are_generated_when_a_model_is_named(
    model: str, problems: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "s.jsonl"
    argv = ["generate", "--model", model, "--problems", problems, "--out", out]
    argv += ["--samples", 2, "--max-new-tokens", 5]
    status, result, _ = run(capfd, *argv)
    assert status == 0
    assert (result["written"], result["already_there"]) == (4, 0)
    assert len(out.read_text().splitlines()) == 4
    _, result, _ = run(capfd, *argv)
    assert (result["written"], result["already_there"]) == (0, 4)
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    assert f"next: codegeex evaluate execute {out}" in capfd.readouterr().out


def test_solutions_are_translated_when_a_source_is_named(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.jsonl"
    argv = ["generate", "--model", model, "--out", out, "--max-new-tokens", 3]
    status, result, _ = run(capfd, *argv, "--translate-from", "python", "--language", "cpp")
    assert status == 0 and result["written"] == 6
    assert json.loads(out.read_text().splitlines()[0])["translated_from"] == "Python"
    status, result, _ = run(capfd, *argv, "--translate-from", "python")
    assert status == 2 and "--translate-from needs one --language" in result["error"]


def test_holes_are_filled_when_a_folder_is_named(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text("import os\n\n\ndef size(path):\n    return os.stat(path)\n")
    argv = ["infilling", tmp_path, "--model", model, "--max-new-tokens", 4]
    status, result, _ = run(capfd, *argv, "--holes", 2, "--lines", "both")
    assert status == 0
    assert [one["suite"] for one in result["suites"]] == ["single-line", "multi-line"]
    assert [one["completions"] for one in result["suites"]] == [2, 2]
    assert result["fim_format"] == "spm"
    assert cli.main(["evaluate", *map(str, argv), "--fim-format", "l2r"]) == 0
    assert "exact match" in capfd.readouterr().out


def test_holes_of_a_benchmark_are_filled_and_run(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {
        "task_id": "SingleLineInfilling/HumanEval/0/L0",
        "entry_point": "one",
        "prompt": "def one():\n",
        "suffix": "",
        "canonical_solution": "    return 1",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
    }
    benchmark, out = tmp_path / "single.jsonl", tmp_path / "s.jsonl"
    benchmark.write_text(json.dumps(row) + "\n")
    argv = ["infilling", benchmark, "--model", model, "--max-new-tokens", 4, "--out", out]
    status, result, _ = run(capfd, *argv)
    assert status == 0 and result["samples"] == str(out)
    assert cli.main(["evaluate", *map(str, argv)]) == 0
    assert f"execute {out} --problems {benchmark} --allow-execution" in capfd.readouterr().out
    with out.open("a") as file:
        right = {"task_id": row["task_id"], "completion": "    return 2 - 1"}
        file.write(json.dumps(right) + "\n")
    argv = ["execute", out, "--problems", benchmark, "--allow-execution"]
    status, result, _ = run(capfd, *argv)
    summary = result["languages"][0]
    assert (summary["suite"], summary["samples"], summary["passed"]) == ("single-line", 2, 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        (["generate", "--samples", "0", "--out", "x"], "--samples is 0: it must be at least 1"),
        (
            ["generate", "--samples", "2", "--temperature", "0", "--out", "x"],
            "without chance all samples are the same",
        ),
        (["generate"], "required: --out"),
        (["infilling", ".", "--holes", "0"], "--holes is 0: it must be at least 1"),
        (["infilling", ".", "."], "holes are drawn in one folder at a time"),
        (["score", "missing.jsonl"], "missing.jsonl"),
        (["score", "missing.jsonl", "--k", "0"], "--k is 0: it must be at least 1"),
        (["check", "--language", "klingon", "--allow-execution"], "language 'klingon' is unknown"),
        (["check", "--wall-s", "0", "--allow-execution"], "wall_s is 0.0: it must be above 0"),
    ],
)
def test_use_is_refused_when_it_cannot_be_meant(
    argv: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    status, result, _ = run(capfd, *argv)
    assert status == 2
    assert message in result["error"]


@pytest.mark.parametrize("part", ["generate", "infilling", "execute", "score", "check"])
def test_help_tells_the_flags_when_it_is_asked_for(
    part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", part, "--help"]) == 0
    assert "--json" in capfd.readouterr().out
