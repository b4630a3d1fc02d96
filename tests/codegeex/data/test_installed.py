from importlib.metadata import distributions

import pytest

from codegeex.data.config import INSTALLED_CODE, STDLIB_CODE, PrepareConfig
from codegeex.data.installed import installed_packages
from codegeex.data.sources import list_sources

CONFIG = PrepareConfig(sources=[INSTALLED_CODE], out="y")


@pytest.fixture(scope="module")
def listing():
    return list_sources(CONFIG)


def test_packages_are_those_of_the_environment_when_listed():
    names = [package.name.lower() for package in installed_packages()]
    present = {item.metadata["Name"].lower() for item in distributions()}
    assert names[0] == "stdlib"
    assert set(names[1:]) == present - {"glm-lab"}
    assert names[1:] == sorted(names[1:])


def test_licences_are_judged_when_packages_are_well_known():
    permissive = {package.name.lower(): package.permissive for package in installed_packages()}
    known = {"stdlib": True, "numpy": True, "torch": True, "pytest": True, "einops": True}
    assert {name: permissive[name] for name in known} == known
    other = {name: permissive[name] for name in ("codespell", "certifi") if name in permissive}
    assert not any(other.values())


def test_files_are_of_permissive_packages_only_when_listed(listing):
    repositories = {file.repository for file in listing.files}
    assert {"stdlib", "torch", "numpy"} <= repositories
    assert not repositories & {package["name"] for package in listing.packages_left_out}
    assert repositories <= set(listing.versions)
    assert all(file.licence and file.language == "python" for file in listing.files)


def test_own_code_is_left_out_when_the_package_is_installed(listing):
    own = ("glm_core/", "glm_kernels/", "codegeex/")
    assert not [file.name for file in listing.files if file.name.startswith(own)]
    assert not [file.name for file in listing.files if "test" in file.name.split("/")[0].split("_")]


def test_stdlib_is_one_repository_without_packages_when_listed(listing):
    names = [file.name for file in listing.files if file.repository == "stdlib"]
    assert {"dataclasses.py", "json/decoder.py"} <= set(names)
    assert not [name for name in names if name.startswith(("test/", "site-packages/"))]


def test_stdlib_stands_alone_when_asked_for():
    listing = list_sources(PrepareConfig(sources=[STDLIB_CODE], out="y"))
    assert {file.repository for file in listing.files} == {"stdlib"}
    assert list(listing.versions) == ["stdlib"]
    assert listing.packages_left_out == []
