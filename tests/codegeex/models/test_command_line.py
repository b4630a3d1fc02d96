"""The released folders from the command line: converted, and asked for text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import codegeex.cli
import glm_core.cli
from glm_core.checkpoint import load_model
from glm_core.checkpoint.released import open_checkpoint

from .released_folders import write_codegeex2, write_codegeex4, write_codegeex_13b

TEXT = "def add(a, b):\n    return"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    write_codegeex_13b(root / "codegeex-13b")
    write_codegeex2(root / "codegeex2-6b")
    write_codegeex4(root / "codegeex4-9b")
    return root


@pytest.fixture
def said(capsys):
    """Runs a program in this process; returns the JSON that it prints."""

    def run(main, *arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def in_a_process(program, *arguments):
    command = Path(sys.executable).with_name(program)
    done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


GREEDY = ("--max-new-tokens", "12", "--temperature", "0")


def test_glm_generate_writes_on_when_started_from_a_shell(folders):
    folder = str(folders / "codegeex-13b")
    printed = in_a_process("glm", "generate", "--model", folder, TEXT, *GREEDY, "--json")
    written = json.loads(printed)
    assert written["text"].startswith(TEXT) and len(written["samples"][0]["blanks"][0]["tokens"])


def test_codegeex_generate_fills_a_hole_when_started_from_a_shell(folders):
    folder = str(folders / "codegeex4-9b")
    hole = ("--prefix", "def add(a, b):\n    ", "--suffix", "\nprint(add(1, 2))\n")
    rest = ("--path", "add.py", "--max-new-tokens", "12", "--raw", "--json")
    written = json.loads(in_a_process("codegeex", "generate", "--model", folder, *hole, *rest))
    assert written["choices"][0]["tokens"]
    # the frame and the sentinels of CodeGeeX4 stand around what the hole says
    assert written["usage"]["prompt"] > len("".join(hole))


@pytest.mark.parametrize("quantize", ["keep", "int4"])
@pytest.mark.parametrize("name", ["codegeex-13b", "codegeex2-6b"])
def test_both_programs_write_the_same_when_asked_to_continue(folders, said, name, quantize):
    model = ("--model", str(folders / name), "--quantize", quantize)
    one = said(glm_core.cli.main, "generate", *model, TEXT, *GREEDY)
    other = said(codegeex.cli.main, "generate", *model, "--prefix", TEXT, "--raw", "--no-healing",
                 "--max-new-tokens", "12")  # fmt: skip
    tokens = one["samples"][0]["blanks"][0]["tokens"]
    assert other["choices"][0]["tokens"] == tokens


@pytest.mark.parametrize("quantize", ["keep", "int4"])
def test_hole_is_written_as_codegeex4_was_taught_when_filled(folders, said, quantize):
    model = ("--model", str(folders / "codegeex4-9b"), "--quantize", quantize)
    settings = ("--max-new-tokens", "12", "--raw", "--no-healing")
    hole = ("--prefix", "def f(x):\n    ", "--suffix", "\nf(1)\n", "--path", "pkg/f.py")
    prompt = (
        "<|user|>\n###PATH:pkg/f.py\n###LANGUAGE:Python\n###MODE:BLOCK\n"
        "<|code_suffix|>\nf(1)\n<|code_prefix|>def f(x):\n    <|code_middle|><|assistant|>\n"
    )
    one = said(codegeex.cli.main, "generate", *model, *hole, *settings)
    other = said(codegeex.cli.main, "generate", *model, "--prompt", prompt, *settings)
    assert one["choices"][0]["tokens"] == other["choices"][0]["tokens"]
    assert one["usage"]["prompt"] == other["usage"]["prompt"]


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("codegeex-13b", "codegeex-13b-fused"),
        ("codegeex-13b", "codegeex-13b-mindspore"),
        ("codegeex2-6b", "chatglm2"),
        ("codegeex4-9b", "glm4-hf"),
    ],
)
def test_converted_folder_writes_the_same_when_asked(folders, said, tmp_path, name, to):
    source, target = str(folders / name), str(tmp_path / "there")
    done = said(glm_core.cli.main, "convert", source, target, "--to", to)
    assert done["to"] == to and done["parameters"] == sum(
        parameter.numel() for parameter in load_model(source)[0].parameters()
    )
    written = [
        said(glm_core.cli.main, "generate", "--model", folder, TEXT, *GREEDY)["samples"]
        for folder in (source, target)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("bits", [8, 4])
def test_codegeex_13b_is_split_quantized_and_asked_when_converted(folders, said, tmp_path, bits):
    source, rows = str(folders / "codegeex-13b"), str(tmp_path / "rows")
    said(glm_core.cli.main, "convert", source, rows, "--to", "codegeex-13b", "--tp", "2",
         "--quantize", f"int{bits}", "--dtype", "float16")  # fmt: skip
    assert len(list(Path(rows).glob("mp_rank_*_model_states.safetensors"))) == 2
    assert open_checkpoint(rows).bits == bits
    written = said(glm_core.cli.main, "generate", "--model", rows, TEXT, *GREEDY)
    assert len(written["samples"][0]["blanks"][0]["tokens"]) == 12
    smaller = tmp_path / "whole"
    said(glm_core.cli.main, "convert", rows, str(smaller), "--quantize", "none", "--dtype",
         "float16")  # fmt: skip
    one, other = open_checkpoint(rows), open_checkpoint(smaller)
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.names())


@pytest.mark.parametrize("precision", ["model", "single"])
def test_reference_numerics_are_computed_when_asked(folders, said, tmp_path, precision):
    """The norms' precision is told by config.json, as the files of Megatron do not say it."""
    folder = tmp_path / "there"
    folder.mkdir()
    for file in (folders / "codegeex-13b").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["glm_lab"] = {"norm_precision": precision}
    (folder / "config.json").write_text(json.dumps(config))
    model, _ = load_model(folder, dtype="float16", reference_numerics=True)
    kept = torch.float32 if precision == "single" else torch.float16
    assert model.dtype == torch.float16 and model.final_norm.weight.dtype == kept
    half = ("--dtype", "float16", "--reference-numerics")
    written = said(glm_core.cli.main, "generate", "--model", str(folder), TEXT, *GREEDY, *half)
    assert len(written["samples"][0]["blanks"][0]["tokens"]) == 12


def test_error_names_the_files_when_several_could_be_the_model(folders, tmp_path, capsys):
    for name in ("codegeex_13b.pt", "codegeex_13b_qkv.pt"):
        (tmp_path / name).write_bytes((folders / "codegeex-13b/codegeex_13b.pt").read_bytes())
    assert glm_core.cli.main(["generate", "--model", str(tmp_path), TEXT]) == 2
    assert "several files with names of their own" in capsys.readouterr().err


def test_prompt_file_and_greedy_are_heeded_when_given(folders, said, tmp_path):
    """The original's test_inference.py had flags for both, and read neither."""
    model = ("--model", str(folders / "codegeex2-6b"))
    file = tmp_path / "prompt.py"
    file.write_text(TEXT)
    settings = ("--raw", "--no-healing", "--max-new-tokens", "12")
    from_file = said(codegeex.cli.main, "generate", *model, "--file", str(file), *settings)
    told = ("--prefix", TEXT, "--path", str(file))
    from_text = said(codegeex.cli.main, "generate", *model, *told, *settings)
    assert from_file["choices"] == from_text["choices"]
    other = said(codegeex.cli.main, "generate", *model, "--prefix", "x = ", *settings)
    assert other["usage"]["prompt"] != from_file["usage"]["prompt"]
    texts = [
        said(glm_core.cli.main, "generate", *model, TEXT, "--seed", seed, *GREEDY)["text"]
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
