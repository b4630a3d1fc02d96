"""Design rule 1: glm_kernels <- glm_core <- siblings, which do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIBLINGS = {"codegeex", "cogvlm", "relay_diffusion", "webglm"}
MAY_IMPORT = {
    "glm_kernels": set(),
    "glm_core": {"glm_kernels"},
    **{name: {"glm_core", "glm_kernels"} for name in SIBLINGS},
}


def sources(package: str) -> list[Path]:
    return [
        p for base in ("kernels", "packages") for p in (ROOT / base).rglob(f"src/{package}/**/*.py")
    ]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_only_lower_layers_are_imported_when_read(package):
    files = sources(package)
    assert files
    for path in files:
        forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
        assert imported(path) & forbidden == set(), path


def test_contract_is_kept_when_import_linter_runs():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    run = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "Contracts: 1 kept, 0 broken." in run.stdout


def test_contract_names_every_package_when_read():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    linter = tomllib.loads(text)["tool"]["importlinter"]
    assert set(linter["root_packages"]) == set(MAY_IMPORT)
    (contract,) = linter["contracts"]
    assert contract["type"] == "layers"
    assert set(contract["layers"][0].split(" | ")) == SIBLINGS
    assert contract["layers"][1:] == ["glm_core", "glm_kernels"]
