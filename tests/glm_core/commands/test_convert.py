"""`glm convert` as a person types it."""

import json

import pytest
import torch

from glm_core.checkpoint.formats import FORMATS
from glm_core.checkpoint.released import open_checkpoint
from glm_core.cli import main
from glm_core.testing import tiny_model

from ..checkpoint import released_files as files
from ..checkpoint.formats.test_released_layouts import CHATGLM2_CONFIG


@pytest.fixture
def source(tmp_path):
    """A folder as ChatGLM3-6B comes, without its tokenizer."""
    state = files.chatglm2(files.arrays_of(tiny_model("chatglm3-6b", vocab_size=64)), 2)
    files.save_bin(tmp_path / "chatglm3-6b", state, CHATGLM2_CONFIG, files=7)
    return tmp_path / "chatglm3-6b"


def test_list_names_every_format_and_what_it_holds(capsys):
    assert main(["convert", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(FORMATS)
    assert any("ChatGLM3-6B" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_list_is_json_when_asked_for(capsys):
    assert main(["convert", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == {name: format.holds for name, format in FORMATS.items()}


def test_first_use_says_what_was_written(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    count = sum(
        parameter.numel() for parameter in tiny_model("chatglm3-6b", vocab_size=64).parameters()
    )
    assert told.out.startswith(f"chatglm2 -> glm-lab: {count:,} parameters, 75.9 kB in 1 file, ")
    assert told.out.count("\n") == 1
    assert "no tokenizer goes along" in told.err
    assert open_checkpoint(tmp_path / "out").format.name == "glm-lab"


def test_result_is_one_object_when_json_is_asked_for(source, tmp_path, capsys):
    out = str(tmp_path / "out")
    command = ["convert", str(source), out, "--to", "glm4-hf", "--max-shard-size", "20KB"]
    assert main([*command, "--dtype", "bfloat16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    count = result["parameters"]
    assert result.pop("seconds") >= 0
    assert result == {
        "folder": out,
        "from": "chatglm2",
        "to": "glm4-hf",
        "parameters": count,
        "bytes": 2 * count,
        "files": len(list((tmp_path / "out").glob("*.safetensors"))),
    }
    assert result["files"] > 1
    assert open_checkpoint(out).info("word_embeddings.weight").dtype == torch.bfloat16


def test_quantize_and_back(source, tmp_path):
    rows, numbers = str(tmp_path / "int4"), str(tmp_path / "numbers")
    assert main(["convert", str(source), rows, "--to", "chatglm2", "--quantize", "int4"]) == 0
    assert open_checkpoint(rows).bits == 4
    assert main(["convert", rows, numbers, "--from", "chatglm2", "--quantize", "none"]) == 0
    one, other = open_checkpoint(rows), open_checkpoint(numbers)
    assert other.bits is None
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.names())


def test_tensor_parallel_files_are_as_many_as_asked_for(tmp_path, capsys):
    w = files.arrays_of(tiny_model("glm-130b", vocab_size=64))
    files.save_ranks(tmp_path / "8/49300", [files.glm_130b(w, 2, rank, 4) for rank in range(4)])
    (tmp_path / "8/latest").write_text("49300")
    (tmp_path / "8/config.json").write_text('{"num_attention_heads": 4}')
    out = str(tmp_path / "2")
    assert main(["convert", str(tmp_path / "8"), out, "--to", "glm-130b", "--tp", "2"]) == 0
    assert "in 2 files" in capsys.readouterr().out
    assert open_checkpoint(out).num_ranks == 2


FAULTS = {
    "nothing": ([], "give the folder to read and the folder to write, or --list"),
    "one": (["{source}"], "give the folder to read and the folder to write, or --list"),
    "absent": (["nowhere", "{out}"], "nowhere does not exist: give the folder that holds"),
    "to": (
        ["{source}", "{out}", "--to", "gguf"],
        "format 'gguf' is unknown: choose one of glm-lab",
    ),
    "from": (["{source}", "{out}", "--from", "x"], "format 'x' is unknown: choose one of glm-lab"),
    "tp": (["{source}", "{out}", "--tp", "2"], "--tp is 2, but format glm-lab knows no tensor-par"),
    "size": (
        ["{source}", "{out}", "--max-shard-size", "big"],
        "--max-shard-size is 'big': give bytes, or a number with a unit like 6GB",
    ),
    "holds": (["{source}", "{out}", "--to", "llama"], "format llama .* cannot hold this model"),
    "same": (["{source}", "{source}"], "exists already: choose another folder, or delete it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_error_is_one_line_and_status_2(source, tmp_path, capsys, fault):
    import re

    arguments, message = FAULTS[fault]
    filled = [word.format(source=source, out=tmp_path / "out") for word in arguments]
    assert main(["convert", *filled]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert re.search(message, told.err), told.err
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_error_is_json_too(source, capsys):
    assert main(["convert", str(source), str(source), "--json"]) == 2
    assert "exists already" in json.loads(capsys.readouterr().out)["error"]


def test_status_is_1_when_the_disk_fills_up(source, tmp_path, capsys, monkeypatch):
    from glm_core.checkpoint import writer

    def bytes_of(tensor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "bytes_of", bytes_of)
    assert main(["convert", str(source), str(tmp_path / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_status_is_130_when_interrupted(source, tmp_path, monkeypatch):
    from glm_core.checkpoint import writer

    def bytes_of(tensor):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "bytes_of", bytes_of)
    assert main(["convert", str(source), str(tmp_path / "out")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
