"""``codegeex generate`` on a tiny random model."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from codegeex import cli
from codegeex.commands import generate
from codegeex.complete import Options
from codegeex.hole import Mode
from codegeex.testing import tiny_code_model
from glm_core.checkpoint.pretrained import save_pretrained

FILE = 'import math\r\n\r\n\r\ndef area(radius):\r\n    return "größe 🙂" + \r\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("generate") / "model"
    save_pretrained(*tiny_code_model(), path)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_bytes(FILE.encode())
    return path


def _flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return parser.parse_args(words)


def test_nothing_but_the_completion_is_on_stdout(
    folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "--model", folder, "--prefix", "def fib(n):", "--suffix", "", "--raw"]
    assert cli.main([*argv, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    (only,) = result["choices"]
    assert cli.main(argv) == 0
    assert capfd.readouterr().out == only["text"] + "\n"
    assert cli.main([*argv, "--null"]) == 0
    assert capfd.readouterr().out == only["text"] + "\0"
    assert result["usage"]["prompt"] > 3 and result["timings"]["total_s"] > 0


def test_completions_are_printed_best_first(folder: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["generate", "--model", folder, "def area(", "--num-choices", "3", "--raw", "--json"]
    assert cli.main(argv) == 0
    choices = json.loads(capfd.readouterr().out)["choices"]
    logprobs = [choice["mean_logprob"] for choice in choices]
    assert len(choices) > 1 and logprobs == sorted(logprobs, reverse=True)
    assert cli.main([*argv[:-1], "-0"]) == 0
    texts = [choice["text"] for choice in choices]
    assert capfd.readouterr().out == "".join(f"{text}\0" for text in texts)
    assert cli.main(argv[:-1]) == 0
    assert capfd.readouterr().out == "\n\n".join(texts) + "\n"


def test_prompt_in_the_models_own_format_is_continued(
    folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = "<|code_suffix|>\n<|code_prefix|>x = <|code_middle|>"
    argv = ["generate", "--model", folder, "--prompt", prompt, "--raw", "--json"]
    assert cli.main(argv) == 0
    usage = json.loads(capfd.readouterr().out)["usage"]
    ids = tiny_code_model()[1].encode("x = ")
    assert usage["prompt"] == len(ids) + 1 + 3  # a line break and three sentinels


@pytest.mark.parametrize(
    ("flags", "before"),
    [
        (["--line", "5"], '    return "größe 🙂" + '),
        (["--line", "5", "--column", "1"], ""),
        (["--line", "5", "--column", "21"], '    return "größe 🙂"'[:20]),
        (["--line", "4"], "def area(radius):"),
        (["--line", "5", "--column", "99"], '    return "größe 🙂" + '),
        ([], ""),
    ],
)
def test_cursor_is_where_line_and_column_say(file: Path, flags: list[str], before: str) -> None:
    hole = generate.hole_of(_flags("--file", str(file), *flags))
    assert hole.prefix.rpartition("\n")[2] == before
    assert hole.prefix + hole.suffix == FILE
    assert hole.language == "python" and hole.path == str(file)


def test_file_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE.encode())))
    flags = _flags("--stdin", "--line", "4", "--path", "src/app.rs", "--mode", "line")
    hole = generate.hole_of(flags)
    assert hole.prefix.endswith("def area(radius):") and hole.suffix.startswith("\r\n    return")
    assert (hole.path, hole.language, hole.mode) == ("src/app.rs", "rust", Mode.line)


def test_references_are_read_in_their_order(file: Path) -> None:
    flags = _flags("x", "--reference", str(file), "--reference", str(file), "--language", "C++")
    hole = generate.hole_of(flags)
    assert [reference.text for reference in hole.references] == [FILE, FILE]
    assert hole.language == "c++"


def test_other_files_of_the_repository_are_in_the_prompt(
    folder: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "shapes.py").write_text("def area_of_circle(radius):\n    return radius**2\n")
    argv = ["generate", "--model", folder, "--file", str(file), "--line", "5", "--json"]
    assert cli.main([*argv, "--path", "app.py"]) == 0
    alone = json.loads(capfd.readouterr().out)["usage"]["prompt"]
    assert cli.main([*argv, "--root", str(file.parent)]) == 0
    assert json.loads(capfd.readouterr().out)["usage"]["prompt"] > alone + 10
    assert cli.main([*argv, "--root", str(file)]) == 2
    assert "is no folder: give the root of the repository" in capfd.readouterr().err


def test_every_option_has_a_flag() -> None:
    without = {"client", "newest_wins", "logprobs"}  # of a server's requests
    assert {field.name for field in fields(Options)} - without <= set(vars(_flags("x")))


def test_several_completions_are_drawn_unless_a_temperature_says_so() -> None:
    assert generate.options_of(_flags("x", "--num-choices", "2")).temperature > 0
    assert generate.options_of(_flags("x")).temperature == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the place to complete must be given once"),
        (["x", "--stdin"], "the place to complete must be given once"),
        (["x", "--prefix", "y"], "the place to complete must be given once"),
        (["x", "--line", "3"], "--line and --column are places in a file"),
        (["--file", "{file}", "--suffix", "x"], "--suffix goes with --prefix"),
        (["--file", "{file}", "--line", "99"], "--line is 99, but .*app.py has only 5 lines"),
        (["--file", "{file}", "--line", "0"], "--line is 0: it must be at least 1"),
        (["--file", "{file}", "--column", "2"], "--column needs --line"),
        (["--file", "{file}.none"], "No such file"),
        (["--file", "{binary}"], "binary.bin holds NUL bytes: it is binary"),
        (["--file", "{latin}"], r"latin.py is not UTF-8 \(byte 0xf6 at 2\): convert it"),
        (["x\udcff"], "--prefix is not UTF-8"),
        (["x", "--language", "pyhton"], "language 'pyhton' is unknown: did you mean python"),
        (["x", "--num-choices", "2", "--temperature", "0"], "without chance all completions"),
        (["x", "--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["x", "--stop", ""], "stop is .*: it must hold no empty string"),
        (["x", "--fim-format", "spn"], "fim format 'spn' is unknown: did you mean spm"),
        (["--prompt", ""], "the prompt is empty"),
    ],
)
def test_error_says_what_is_wrong(
    folder: str,
    file: Path,
    argv: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:

    binary, latin = file.with_name("binary.bin"), file.with_name("latin.py")
    places = {"file": file, "binary": binary, "latin": latin}
    binary.write_bytes(b"\x7fELF\0\0")
    latin.write_bytes("größe".encode("latin-1"))
    argv = [word.format(**places) for word in argv]
    assert cli.main(["generate", "--model", folder, *argv]) == 2
    out, err = capfd.readouterr()
    assert out == "" and re.search(message, err), err
