from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types

import pytest

from glm_core import cli
from glm_core.commands import COMMANDS
from glm_core.errors import MissingExtraError


def install_command(monkeypatch, run, *, takes_overrides=False):
    """Put a command `probe` in place of a real one."""
    module = types.ModuleType("glm_core.commands.probe")
    module.HELP, module.EXAMPLE = "probe things", "glm probe --number 3"
    module.TAKES_OVERRIDES = takes_overrides
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=1)
    module.run = run
    monkeypatch.setitem(COMMANDS, "probe", module.HELP)
    monkeypatch.setitem(sys.modules, "glm_core.commands.probe", module)


def test_help_lists_commands_when_asked(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and text in out for name, text in COMMANDS.items())


def test_help_loads_no_torch_when_asked():
    code = (
        "import sys; from glm_core.cli import main; main(['--help']); "
        "assert not {'torch', 'numpy', 'hydra'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_usage_is_printed_when_there_is_no_command(capsys):
    assert cli.main([]) == 2
    assert "usage: glm" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(COMMANDS))
def test_command_keeps_the_convention_when_imported(name, capsys):
    module = importlib.import_module(f"glm_core.commands.{name}")
    assert module.HELP == COMMANDS[name]
    assert module.EXAMPLE.strip().startswith(f"glm {name}")
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out
    assert "example:" in out


def test_status_of_the_command_is_returned_when_it_runs(monkeypatch, capsys):
    def run(args):
        cli.emit(args, {"number": args.number}, f"number {args.number}")
        return 1

    install_command(monkeypatch, run)
    assert cli.main(["probe", "--number", "3"]) == 1
    assert capsys.readouterr().out == "number 3\n"
    assert cli.main(["probe", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"number": 1}


def test_overrides_are_handed_on_when_the_command_takes_them(monkeypatch):
    seen = []
    install_command(
        monkeypatch, lambda args: seen.append(args.overrides) or 0, takes_overrides=True
    )
    assert cli.main(["probe", "experiment=debug", "--json", "trainer.max_steps=5"]) == 0
    assert seen == [["experiment=debug", "trainer.max_steps=5"]]


def test_unknown_flag_is_refused_when_the_command_takes_overrides(monkeypatch, capsys):
    install_command(monkeypatch, lambda args: 0, takes_overrides=True)
    assert cli.main(["probe", "a=1", "--typo"]) == 2
    assert (
        "error: unrecognized arguments: --typo (see: glm probe --help)" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("data.path is empty: give a file"), 2, "data.path is empty: give a file"),
        (ValueError("two\nlines"), 2, "two lines"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "No such file or directory"),
        (MissingExtraError('cogvlm needs timm: pip install -e ".[cogvlm]"'), 2, "cogvlm needs"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (FloatingPointError("the gradient was not finite"), 1, "the gradient was not finite"),
    ],
)
def test_one_line_is_printed_when_a_person_can_mend_it(monkeypatch, capsys, error, status, message):
    def run(args):
        raise error

    install_command(monkeypatch, run)
    assert cli.main(["probe"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert cli.main(["probe", "--json"]) == status
    assert message in json.loads(capsys.readouterr().out)["error"]


def test_traceback_is_printed_when_it_is_a_defect(monkeypatch, capsys):
    install_command(monkeypatch, lambda args: {}["missing"])
    assert cli.main(["probe", "--json"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert json.loads(captured.out) == {"error": "KeyError: 'missing'"}


def test_status_is_130_when_interrupted(monkeypatch, capsys):
    def run(args):
        raise KeyboardInterrupt

    install_command(monkeypatch, run)
    assert cli.main(["probe"]) == 130


@pytest.mark.parametrize("argv", [["fly"], ["--fly"], ["--json", "fly"]])
def test_bad_usage_is_refused_when_there_is_no_such_command(argv, capsys):
    assert cli.main(argv) == 2
    assert "glm --help" in capsys.readouterr().err
