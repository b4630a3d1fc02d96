import json

import pytest

from codegeex.cli import main

CODE = '''"""Number {n}."""


class Thing{n}:
    """Holds the value {n} and what is added to it, until it is asked for the sum of both."""

    def __init__(self, value={n}):
        self.value = value

    def plus_{n}(self, other):
        return self.value * {n} + other
'''


@pytest.fixture
def folder(tmp_path):
    for n in range(12):
        (tmp_path / "code").mkdir(exist_ok=True)
        words = "\n".join(f"word{n}of{k} = another_thing_{n} + {k}" for k in range(40))
        (tmp_path / "code" / f"m{n}.py").write_text(CODE.format(n=n) + words + "\n")
    (tmp_path / "code" / "tiny.py").write_text("x = 1\n")
    return tmp_path


def run(folder, *flags):
    command = ["prepare", str(folder / "code"), "--out", str(folder / "out"), "--workers", "1"]
    return main([*command, "--vocab-size", "320", *flags])


def test_result_is_told_when_prepared(folder, capsys):
    assert run(folder) == 0
    out = capsys.readouterr().out
    assert "train: 11 documents" in out
    assert "heldout: 1 documents" in out
    assert "1 repositories, split by file" in out
    assert "1        0.0 MB  below min_bytes" in out
    assert out.strip().endswith("out")


def test_one_object_is_printed_when_json_is_asked_for(folder, capsys):
    assert run(folder, "--json", "--heldout-fraction", "0.3") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["splits"]["train"]["documents"] + result["splits"]["heldout"]["documents"] == 12
    assert result["dropped"]["too_small"] == [1, 6]
    assert [row["files"] for row in result["repositories"]] == [
        result["splits"]["train"]["documents"]
    ]


def test_sources_may_stand_last_when_flags_take_a_value(folder, capsys):
    (folder / "bench.jsonl").write_text('{"task_id": "a", "prompt": "one two three"}')
    flags = ["--out", str(folder / "o"), "--vocab-size", "320", "--workers", "1"]
    bench = ["--decontaminate", str(folder / "bench.jsonl")]
    assert main(["prepare", *flags, *bench, *bench, "--json", str(folder / "code")]) == 0
    assert json.loads(capsys.readouterr().out)["contaminated"] == []


def test_problems_are_named_when_some_are_found(folder, capsys):
    problem = {"task_id": "Thing/3", "prompt": (folder / "code" / "m3.py").read_text()}
    (folder / "bench.jsonl").write_text(json.dumps(problem))
    assert run(folder, "--decontaminate", str(folder / "bench.jsonl")) == 0
    out = capsys.readouterr().out
    assert "benchmark problems: Thing/3 in code/m3.py\n" in out
    assert "holds a benchmark's problem" in out


def test_settings_reach_the_work_when_given_as_flags(folder, capsys):
    flags = ["--min-bytes", "1", "--no-path-line", "--near-duplicates", "0", "--languages", "py,go"]
    assert run(folder, "--json", "--tests", "--copyleft", "--split-by", "file", *flags) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["min_bytes"] == 1
    assert settings["path_line"] is False
    assert settings["near_duplicates"] == 0
    assert settings["languages"] == ["go", "python"]
    assert settings["tests"] is True
    assert settings["copyleft"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-bytes", "10"], "max_bytes=10 must be above min_bytes"),
        (["--languages", "klingon"], "language 'klingon' is unknown"),
        (["--decontaminate", "none.jsonl"], "--decontaminate none.jsonl cannot be read"),
        (["--tokenizer", "none"], "no tokenizer in none"),
        (["--split-by", "moon"], "invalid choice: 'moon'"),
    ],
)
def test_status_is_two_when_a_flag_is_wrong(folder, capsys, flags, message):
    assert run(folder, *flags) == 2
    assert message in capsys.readouterr().err
