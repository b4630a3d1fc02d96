"""Real code in small folders."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from codegeex.data.config import PrepareConfig

STDLIB = Path(sysconfig.get_paths()["stdlib"])
MODULES = {
    "alpha": ["bisect", "calendar", "cmd", "colorsys", "contextlib", "copy", "csv", "dis"],
    "beta": ["fnmatch", "fractions", "glob", "gzip", "heapq", "hmac", "json/decoder", "queue"],
}


def copy_code(folder):
    for repository, names in MODULES.items():
        for name in names:
            target = folder / repository / f"{name}.py"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(STDLIB / f"{name}.py", target)


@pytest.fixture
def code(tmp_path):
    """A folder with two folders of modules of the standard library, each a repository."""
    copy_code(tmp_path / "code")
    return tmp_path / "code"


@pytest.fixture(scope="module")
def module_code(tmp_path_factory):
    """The same, once for a module."""
    folder = tmp_path_factory.mktemp("module") / "code"
    copy_code(folder)
    return folder


@pytest.fixture
def config(code, tmp_path):
    """Makes settings for the folder `code`."""

    def make(**changes):
        settings = dict(
            sources=[str(code)],
            out=str(tmp_path / "out"),
            vocab_size=400,
            heldout_fraction=0.15,
            workers=1,
        )
        return PrepareConfig(**settings | changes)

    return make
