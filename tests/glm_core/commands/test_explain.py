import io
import json

import pytest

from glm_core import cli
from glm_core.tokenizer import ByteBPETokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    ByteBPETokenizer.train(["The with statement wraps a block. " * 20], 350).save(folder)
    return str(folder)


def test_table_and_picture_are_printed_when_a_text_is_given(model, capsys):
    assert cli.main(["explain", "--model", model, "The with statement wraps a block."]) == 0
    out = capsys.readouterr().out
    assert "training, mode mask, seed 0" in out
    assert "<|startofpiece|>" in out
    assert "●●" in out


@pytest.mark.parametrize("mode", ["mask", "sentence", "gmask", "causal"])
def test_one_object_is_printed_when_json_is_asked(model, capsys, mode):
    status = cli.main(["explain", "--json", "--model", model, "--mode", mode, "The block."])
    data = json.loads(capsys.readouterr().out)
    assert status == 0
    assert data["kind"] == "training"
    assert data["mode"] == mode
    assert len(data["tokens"]) == len(data["mask"])


def test_text_is_a_prompt_when_it_has_a_marker(model, capsys):
    assert cli.main(["explain", "--json", "--model", model, "The [MASK] wraps."]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "prompt"
    assert "[MASK]" in [token["token"] for token in data["tokens"]]


def test_text_comes_from_standard_input_when_it_is_a_dash(model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("The block.\n"))
    assert cli.main(["explain", "--json", "--model", model, "-"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "The block."


def test_bytes_are_tokens_when_no_model_is_installed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "glm_core.checkpoint.pretrained.EMBEDDED", {"nano-text": tmp_path / "missing"}
    )
    assert cli.main(["explain", "--json", "ab", "--mode", "causal"]) == 0
    captured = capsys.readouterr()
    tokens = [token["token"] for token in json.loads(captured.out)["tokens"]]
    assert tokens == ["[CLS]", "a", "b"]
    assert "nano-text is not installed" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "--mode", "mask"], "the text is empty"),
        (["x", "--mask-ratio", "0"], "--mask-ratio is 0.0: it must be above 0"),
        (["a [mask] b"], "unknown marker [mask]: the blanks are [MASK], [sMASK], [gMASK]"),
        (["x", "--seed", "-1"], "--seed is -1: it must be 0 or more"),
    ],
)
def test_status_is_2_when_the_input_is_bad(model, capsys, arguments, message):
    assert cli.main(["explain", "--model", model, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_error_names_the_folder_when_there_is_no_tokenizer(capsys, tmp_path):
    assert cli.main(["explain", "--model", str(tmp_path), "x"]) == 2
    assert "no tokenizer in" in capsys.readouterr().err
