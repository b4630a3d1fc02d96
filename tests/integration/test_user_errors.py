"""Bad input through the command: status 2, and one line that names value and remedy."""

from __future__ import annotations

import json

import pytest

from glm_core import cli

MINE = ["train", "experiment=my_text", "run_dir={tmp}/run"]
CASES = {
    "unknown experiment": (["train", "experiment=my_tex"], "did you mean my_text?"),
    "unknown key": ([*MINE, "trainer.max_step=4"], "did you mean trainer.max_steps"),
    "no corpus named": (MINE, "data.source is empty: name your text"),
    "corpus not there": ([*MINE, "data.source={tmp}/no"], "no' does not exist: name a text, jsonl"),
    "folder without text": ([*MINE, "data.source={tmp}"], "holds no .txt, .md, .jsonl or .parquet"),
    "rows beyond positions": (
        [*MINE, "data.source={tmp}", "data.seq_length=4096"],
        "data.seq_length is 4096, longer than model.max_position_embeddings (1024)",
    ),
    "batch does not divide": (
        [*MINE, "trainer.global_batch_size=33"],
        "trainer.global_batch_size (33) must be a multiple of trainer.micro_batch_size (32)",
    ),
    "not key=value": (["train", "experiment"], "is not of the form key=value"),
    "model not there": (["generate", "--model", "{tmp}/no", "x"], "the folder does not exist"),
    "misspelt blank": (["generate", "A [mask] here."], "unknown marker [mask]: the blanks are"),
    "unknown device": (["generate", "--device", "gpu", "x"], "--device is 'gpu'; use auto, cpu or"),
    "evaluated model not there": (["evaluate", "--model", "{tmp}/no"], "does not exist"),
    "unknown mode": (["explain", "--mode", "fly", "x"], "invalid choice: 'fly'"),
    "unknown scene": (["demo", "--scene", "fly"], "no scene matches 'fly'; there are"),
    "no benchmark named": (["bench"], "the following arguments are required"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_remedy_is_told_in_one_line_when_input_is_bad(name, tmp_path, capsys):
    argv, message = CASES[name]
    argv = [word.replace("{tmp}", str(tmp_path)) for word in argv]
    assert cli.main([*argv, "--json"]) == 2
    captured = capsys.readouterr()
    told = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert message in told[0]
    assert json.loads(captured.out) == {"error": told[0].removeprefix("error: ")}
    assert "Traceback" not in captured.err
