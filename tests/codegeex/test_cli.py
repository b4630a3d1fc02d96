from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from codegeex.cli import main
from codegeex.commands import COMMANDS


def test_help_lists_commands_when_asked(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "usage: codegeex" in out
    assert all(name in out and text in out for name, text in COMMANDS.items())


def test_help_loads_no_torch_when_asked():
    code = (
        "import sys; from codegeex.cli import main; main(['--help']); "
        "assert not {'torch', 'numpy', 'hydra', 'pygls'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_command_keeps_the_convention_when_imported(name, capsys):
    module = importlib.import_module(f"codegeex.commands.{name}")
    assert module.HELP == COMMANDS[name]
    assert module.EXAMPLE.strip().startswith(f"codegeex {name}")
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out and "example:" in out


def test_usage_is_printed_when_there_is_no_command(capsys):
    assert main([]) == 2
    assert "usage: codegeex" in capsys.readouterr().out


def test_error_names_the_commands_when_one_is_misspelt(capsys):
    assert main(["complete"]) == 2
    assert "error: " in (err := capsys.readouterr().err) and "generate" in err


def test_experiments_are_listed_when_train_is_told_nothing(capsys):
    assert main(["train"]) == 2
    err = capsys.readouterr().err
    assert "say what to train, for example: codegeex train experiment=debug" in err
    assert "experiment=nano_code" in err and "nano_text" not in err


def test_plan_is_printed_and_nothing_trained_when_run_dry(capsys, tmp_path):
    run_dir = tmp_path / "run"
    assert main(["train", "experiment=nano_code", f"run_dir={run_dir}", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "parameters" in out and "tokens in the run" in out
    assert not run_dir.exists()
