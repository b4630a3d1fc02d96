"""The page as it is served and as it is built."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from glm_core.serve import page
from glm_core.serve.errors import add_error_handlers

WEB = Path(__file__).parents[3] / "packages" / "glm-core" / "web"
BUILD_FILES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(page.router)
    return TestClient(app)


def test_policy_allows_only_own_files_when_the_page_is_served(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_every_file_is_there_and_ours_when_the_page_names_it(client: TestClient) -> None:
    text = client.get("/").text
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(named) == 3
    for name in named:
        assert name.startswith("./assets/")
        assert client.get(name.removeprefix(".")).status_code == 200
    assert re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|://", text) is None


def test_file_is_not_sent_again_when_the_browser_has_it(client: TestClient) -> None:
    first = client.get("/assets/page.js")
    again = client.get("/assets/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert "content-security-policy" in again.headers


def test_size_is_told_when_only_the_head_is_asked_for(client: TestClient) -> None:
    whole, head = client.get("/"), client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("name", ["other.js", "..%2fpage.py", "%2e%2e/page.py", "page.js/", ""])
def test_path_is_unknown_when_it_is_no_file_of_the_page(client: TestClient, name: str) -> None:
    assert client.get(f"/assets/{name}", follow_redirects=False).status_code in (404, 307)


def test_build_is_small_when_all_is_counted() -> None:
    sizes = [path.stat().st_size for path in page.FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < 400_000


def test_build_is_of_these_sources_when_their_hash_is_taken() -> None:
    """`npm run build` writes the hash; the sources have changed since if it is another."""
    paths = [path for folder in ("public", "src") for path in (WEB / folder).rglob("*")]
    names = [path.relative_to(WEB).as_posix() for path in paths if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*names, *BUILD_FILES]):
        digest.update(name.encode() + b"\0" + (WEB / name).read_bytes())
    built = (page.FOLDER / "source.sha256").read_text().strip()
    assert built == digest.hexdigest(), "build the page: cd packages/glm-core/web && npm run build"


def test_no_source_makes_elements_of_text() -> None:
    for path in (WEB / "src").rglob("*.ts*"):
        text = path.read_text()
        found = re.findall(
            r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        assert found == [], path


def test_lock_names_no_registry_when_read() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()


@pytest.mark.slow
def test_build_gives_the_same_bytes_when_made_again(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or not (WEB / "node_modules").is_dir():
        pytest.skip("the page's tools are not installed: cd packages/glm-core/web && npm ci")
    command = [npm, "run", "build", "--", "--outDir", str(tmp_path), "--emptyOutDir"]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in page.FOLDER.rglob("*"):
        if path.is_file():
            again = tmp_path / path.relative_to(page.FOLDER)
            assert again.read_bytes() == path.read_bytes(), path.name
