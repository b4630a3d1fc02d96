"""The one distribution: what is in its wheel, and what its extras and constraints say."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ["glm_kernels", "glm_core", "codegeex", "cogvlm", "relay_diffusion", "webglm"]


def normal(requirement: str) -> str:
    """Canonical name of a distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_every_package_is_in_the_wheel_when_built(wheel):
    for name in PACKAGES:
        assert f"{name}/__init__.py" in wheel
        assert f"{name}/py.typed" in wheel


def test_configs_are_in_the_wheel_when_built(wheel):
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    packed = {n.removeprefix("glm_core/") for n in wheel if n.startswith("glm_core/configs/")}
    assert ours
    assert ours <= packed


def test_shipped_models_are_in_the_wheel_when_built(wheel):
    for folder, model in (("glm-core/src/glm_core", "text"), ("codegeex/src/codegeex", "code")):
        package = ROOT / "packages" / folder
        files = [path for path in (package / "nano").rglob("*") if path.is_file()]
        ours = {p.relative_to(package.parent).as_posix() for p in files if p.suffix != ".pyc"}
        assert f"{package.name}/nano/{model}/model.safetensors" in ours
        assert ours <= set(wheel)


def test_page_is_in_the_wheel_when_built(wheel):
    package = ROOT / "packages" / "glm-core" / "src"
    files = [path for path in (package / "glm_core/serve/page").rglob("*") if path.is_file()]
    ours = {path.relative_to(package).as_posix() for path in files}
    assert "glm_core/serve/page/assets/page.js" in ours
    assert ours <= set(wheel)


def test_nothing_else_is_in_the_wheel_when_built(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {*PACKAGES, f"glm_lab-{PROJECT['version']}.dist-info"}
    assert not [name for name in wheel if name.endswith((".pyc", ".pt", ".bin"))]


def test_every_dependency_has_a_tested_version_when_installed():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line) for line in lines if "==" in line and not line.startswith("#")}
    wanted = {normal(r) for group in EXTRAS.values() for r in group} - {"glm-lab"}
    assert wanted | {normal(r) for r in PROJECT["dependencies"]} <= pinned


def test_constraints_name_no_place_when_read():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|@|^-|^/", text, flags=re.MULTILINE)


def test_all_holds_every_extra_but_xformers_when_read():
    (everything,) = EXTRAS["all"]
    named = set(re.search(r"\[(.*)\]", everything)[1].split(","))
    assert named == set(EXTRAS) - {"all", "xformers"}


def test_versions_agree_when_compared():
    import glm_core

    assert glm_core.__version__ == PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog
