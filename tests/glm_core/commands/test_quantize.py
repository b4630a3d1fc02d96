"""`glm quantize` as a person types it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.cli import main
from glm_core.quantize import Layout, QuantizeConfig, quantize_
from glm_core.testing import tiny_model
from glm_core.tokenizer import ByteBPETokenizer

TEXT = """The with statement wraps the execution of a block with methods defined by a manager.
A context manager enters and leaves; the value it returns is bound to the target of the statement.
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "model"
    tokenizer = ByteBPETokenizer.train([TEXT] * 4, vocab_size=300)
    model = tiny_model("glm-4-9b", vocab_size=300, ffn_hidden_size=64)
    save_pretrained(model, tokenizer, folder)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    return path


def test_first_use_writes_groups_of_int4_and_tells_the_errors(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["quantize", str(source), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "shape", "layout", "weights"]
    assert lines[1].split()[:2] == ["layers.0.attention.query_key_value", "64x32"]
    assert "int4 groups of 32" in lines[1] and lines[1].endswith("%")
    assert len(lines) == 8 + 3 and " -> " in lines[-1]
    loaded, _ = load_model(out)
    assert loaded.layers[1].mlp.dense_h_to_4h.layout == Layout(4, 32)


def test_result_is_one_object_when_everything_is_asked_for(
    source: Path, tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["quantize", str(source), str(out), "--group", "0", "--asymmetric", "--embeddings"]
    command += ["--head", "--method", "gptq", "--calibration", str(text), "--samples", "4"]
    command += ["--window", "40", "--activation-order", "--evaluate", str(text)]
    assert main([*command, "--skip", "layers.0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["method"] == "gptq" and result["folder"] == str(out)
    assert result["bytes"] < result["bytes_before"]
    names = [layer["name"] for layer in result["layers"]]
    assert "word_embeddings" in names and "output_layer" in names
    assert not any(name.startswith("layers.0") for name in names)
    assert {layer["layout"] for layer in result["layers"]} == {"int4 rows, asymmetric"}
    errors = {layer["name"]: layer["output_error"] for layer in result["layers"]}
    assert errors.pop("word_embeddings") is None and all(0 < e < 0.5 for e in errors.values())
    measured = result["evaluation"]
    assert measured["change"] == pytest.approx(measured["after"] / measured["before"] - 1)


def test_bits_per_byte_are_those_of_the_model_when_reported(
    source: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", "--report", str(source), "--evaluate", str(text), "--calibration"]
    assert main([*command, str(text), "--samples", "2", "--window", "40", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["rows"]
    bits = row["bits_per_byte"]
    assert {"bf16", "int4 rows", "int4 rows asym", "int4 g32", "int4 g32 gptq"} <= bits.keys()
    # nothing is 64 wide but one matrix: the others are in groups of 32
    assert bits["int4 g128"] == bits["int4 g64"] != bits["int4 g32"]
    assert "int4 g128 gptq" not in bits
    for name, config in (("bf16", None), ("int4 rows", QuantizeConfig(bits=4))):
        assert bits[name] == pytest.approx(plain_bits(source, text, config), rel=1e-3), name


def plain_bits(source: Path, text: Path, config: QuantizeConfig | None) -> float:
    """Bits per byte in plain torch: every token once, half a window before it."""
    model, tokenizer = load_model(source, dtype="bfloat16")
    if config is not None:
        quantize_(model, config)
    ids = [tokenizer.cls_id, *tokenizer.encode(text.read_text())]
    window = model.config.max_position_embeddings
    before, chunk = window // 2, window - window // 2 - 2
    nats = 0.0
    for start in range(1, len(ids), chunk):
        first = max(1, start - before)
        piece = torch.tensor([[ids[0], *ids[first : start + chunk]]])
        with torch.no_grad():
            logits = model.logits(model(piece[:, :-1])).float()
        cost = torch.nn.functional.cross_entropy(logits[0], piece[0, 1:], reduction="none")
        nats += float(cost[start - first :].sum())
    return nats / math.log(2) / len(text.read_bytes())


def test_table_has_a_line_for_each_layout_and_a_column_for_each_model(
    source: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", "--report", str(source), str(source), "--evaluate", str(text)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["bits", "per", "byte", "model"]
    assert [line.split("  ")[0] for line in lines[1:3]] == ["bf16", "int8 rows"]
    assert "%" in lines[2] and lines[2].count("%") == 2
    assert lines[3].startswith("int8 rows, 8-bit activations ") and lines[3].count("%") == 2
    assert [line.split("  ")[0] for line in lines][-1] == "int4 g32 asym"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the model to read and the folder to write"),
        (["{source}"], "give the model to read and the folder to write"),
        (["{source}", "{out}", "--bits", "3"], "bits is 3: a quantized matrix has 8 or 4"),
        (["{source}", "{out}", "--group", "48"], "group is 48: it can be 32, 64 or 128"),
        (["{source}", "{out}", "--group", "64"], "32 columns .* cannot have groups of 64"),
        (["{source}", "{out}", "--method", "gptq"], "add --calibration TEXT"),
        (["{source}", "{out}", "--calibration", "absent.txt"], "absent.txt does not exist"),
        (["{source}", "{out}", "--calibration", "{text}", "--samples", "0"], "--samples is 0"),
        (["{source}", "{out}", "--damping", "0"], "damping is 0.0: it must be above 0"),
        (["{source}", "{source}"], "exists already"),
        (["absent/model", "{out}"], "absent/model"),
        (["{source}", "--report", "{source}"], "--report measures the models behind it"),
    ],
)
def test_error_is_one_line_when_the_input_is_wrong(
    source: Path,
    tmp_path: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    places = {"source": source, "out": tmp_path / "out", "text": text}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["quantize", *(a.format(**places) for a in arguments)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.strip().splitlines()[-1]
    assert re.search(message, last), last
    assert not (tmp_path / "out").exists()


def test_empty_text_is_named_when_calibrated(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    out = str(tmp_path / "out")
    assert main(["quantize", str(source), out, "--calibration", str(empty)]) == 2
    assert "empty.txt is empty" in capsys.readouterr().err
    empty.write_bytes(b"\xff\xfe\xfa")
    assert main(["quantize", str(source), out, "--evaluate", str(empty)]) == 2
    assert "empty.txt is not UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
