"""``glm generate`` on a tiny random model."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from glm_core import cli
from glm_core.attention import BACKENDS
from glm_core.attention.eager import EagerAttention
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.commands import generate
from glm_core.infer import Filled, FilledBlank, SamplingConfig
from glm_core.model import Transformer, TransformerConfig
from glm_core.testing import tiny_model
from glm_core.tokenizer import ByteBPETokenizer

BLANK = "The [MASK] statement wraps a block."


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = ByteBPETokenizer.train(["The with statement wraps a block of code."] * 4, 300)
    model = Transformer(
        TransformerConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            max_position_embeddings=64,
        )
    )
    model.init_weights(0)
    folder: Path = tmp_path_factory.mktemp("generate") / "model"
    save_pretrained(model, tokenizer, folder)
    return str(folder)


def _flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return parser.parse_args(words)


def test_every_sampling_field_has_a_flag() -> None:
    names = set(vars(_flags("x")))
    assert {field.name for field in fields(SamplingConfig)} <= names


def test_blank_is_filled_and_printed(model_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["generate", "--model", model_folder, BLANK, "--max-new-tokens", "3"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("The") and out.endswith(" statement wraps a block.\n")
    assert "[MASK]" not in out and "\x1b" not in out


def test_attention_is_computed_as_it_is_asked_for(
    model_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    attend = EagerAttention.attend
    monkeypatch.setattr(EagerAttention, "attend", lambda *args: (asked.append(1), attend(*args))[1])
    argv = ["generate", "--model", model_folder, BLANK, "--max-new-tokens", "3"]
    assert cli.main([*argv, "--seed", "1"]) == 0 and not asked
    written = capsys.readouterr().out
    assert cli.main([*argv, "--seed", "1", "--attention", "eager"]) == 0 and len(asked) > 1
    assert capsys.readouterr().out == written
    for name, message in [
        ("flash", "attention backend 'flash' is unknown: choose auto, eager, sdpa, flex, triton"),
        ("xformers", "'xformers' cannot be used: xformers has kernels for GPUs, not for cpu"),
    ]:
        assert cli.main([*argv, "--attention", name]) == 2
        assert message in capsys.readouterr().err


def test_every_attention_backend_is_named_in_the_help() -> None:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    *names, last = BACKENDS
    assert f"{', '.join(names)} or {last}" in " ".join(parser.format_help().split())


def test_json_tells_text_and_blanks(model_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["generate", "--model", model_folder, BLANK, "--json", "--num-samples", "2"]
    assert cli.main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["prompt"] == BLANK and len(result["samples"]) == 2
    (blank,) = result["samples"][0]["blanks"]
    end = blank["start"] + len(blank["text"])
    assert result["text"][blank["start"] : end] == blank["text"]


def test_continuation_streams_what_json_reports(
    model_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["generate", "--model", model_folder, "-", "--max-new-tokens", "8"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("The with\n"))
    assert cli.main(argv) == 0
    streamed = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("The with\n"))
    assert cli.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] + "\n" == streamed
    assert streamed.startswith("The with")


def test_continuation_samples_and_blanks_are_greedy_when_nothing_is_said() -> None:
    (continued,) = generate.sampling_configs(_flags("x"), continues=True)
    (blank,) = generate.sampling_configs(_flags("x"), continues=False)
    (beams,) = generate.sampling_configs(_flags("x", "--num-beams", "3"), continues=True)
    assert (continued.temperature, continued.top_p) == (0.8, 0.9)
    assert blank.temperature == beams.temperature == 0.0


def test_answers_stand_out_on_a_terminal() -> None:
    blank = FilledBlank("[MASK]", " with", [1], -1.0, "stop_token", 3)
    filled = Filled("The [MASK] wraps", "The with wraps", [blank])
    assert generate.highlight(filled, bold=True) == "The\x1b[1m with\x1b[0m wraps"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--temperature", "-1"], "sampling.temperature is -1.0"),
        (["x", "--num-samples", "2", "--num-beams", "2"], "all answers are the same: give --temp"),
        (["x", "--num-samples", "0"], "--num-samples is 0: it must be at least 1"),
        ([""], "the prompt is empty"),
        (["y" * 70], "model's context holds 64: shorten it by at least"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    model_folder: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["generate", "--model", model_folder, *words]) == 2
    captured = capsys.readouterr()
    told = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and message in told[0]
    # the only other line is the memory plan, where the input is read after the model
    assert captured.err.count("\n") <= 2 and "Traceback" not in captured.err
    assert captured.out == ""


def test_text_that_is_not_utf8_is_refused_when_given(
    model_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["generate", "--model", model_folder, "caf\udce9 [MASK]"]) == 2
    assert "error: the text is not UTF-8: convert it" in capsys.readouterr().err
    for errors in ("strict", "surrogateescape"):  # as the locale has it
        stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8", errors=errors)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["generate", "--model", model_folder, "-", "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"].startswith("standard input is not UTF")


def test_line_break_at_the_end_is_no_text_when_it_is_from_windows(
    model_folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("The with\r\n"))
    assert cli.main(["generate", "--model", model_folder, "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "The with"


RELEASED = {
    "glm": ("glm-large", {"ffn_hidden_size": 128}),
    "glm-hf": ("glm-10b", {"ffn_hidden_size": 128}),
    "chatglm": ("chatglm-6b", {"residual_scale": math.sqrt(56)}),
    "chatglm2": ("chatglm2-6b", {}),
    "glm4-hf": ("glm-4-9b", {}),
    "glm4-0414-hf": ("glm-4-9b-0414", {}),
}


@pytest.mark.parametrize("format", list(RELEASED))
def test_released_folder_answers_as_the_model_in_it(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family, changes = RELEASED[format]
    tokenizer = ByteBPETokenizer.train(["The with statement wraps a block of code."] * 4, 300)
    model = tiny_model(family, vocab_size=384, max_position_embeddings=64, **changes)
    save_pretrained(model, tokenizer, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", format)
    tokenizer.save(tmp_path / "theirs")
    prompt = BLANK if family in ("glm-large", "glm-10b", "chatglm-6b") else "The with"
    answers = []
    for folder in ("ours", "theirs"):
        argv = ["generate", "--model", str(tmp_path / folder), prompt, "--json"]
        assert cli.main([*argv, "--max-new-tokens", "4", "--temperature", "0"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["samples"])
    assert answers[0] == answers[1]


def test_model_is_loaded_as_the_flags_say(
    model_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "--model", model_folder, BLANK, "--max-new-tokens", "3"]
    assert cli.main([*argv, "--quantize", "int8", "--dtype", "bfloat16", "--context", "40"]) == 0
    assert "KV cache" in capsys.readouterr().err
    assert cli.main([*argv, "--max-memory", "1 byte"]) == 2
    assert "--max-memory is '1 byte': give bytes, or a number" in capsys.readouterr().err
    assert cli.main([*argv, "--max-memory", "1kB"]) == 2
    assert "but max_memory is 1.0 kB. No setting makes it fit" in capsys.readouterr().err
    assert cli.main([*argv, "--context", "65"]) == 2
    assert "context is 65: it must be between 1 and 64" in capsys.readouterr().err
    assert cli.main([*argv, "--fast-prompts"]) == 2
    assert "8 (--fast-prompts), but no matrix of the model is quantized" in capsys.readouterr().err
    assert cli.main([*argv, "--fast-prompts", "--quantize", "int8"]) == 0


def test_kind_of_the_tokenizer_and_format_can_be_named(
    model_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "--model", model_folder, BLANK, "--max-new-tokens", "3"]
    named = ["--tokenizer-kind", "byte_bpe", "--from", "glm-lab"]
    assert cli.main(argv) == 0
    expected = capsys.readouterr().out
    assert cli.main([*argv, *named]) == 0
    assert capsys.readouterr().out == expected
    assert cli.main([*argv, "--tokenizer-kind", "chatglm5"]) == 2
    assert "kind='chatglm5' is unknown: known kinds are byte_bpe" in capsys.readouterr().err
    assert cli.main([*argv, "--from", "chatglm2"]) == 2
    assert "lacks" in capsys.readouterr().err
