"""Chromium, the scripted server, and a watch over every page that a test opens."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from glm_core.agent import ToolRegistry
from glm_core.serve.interpreters import Interpreters
from glm_core.serve.workbench import Workbench

from .scripted import PictureExecutor, Scripted, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one file: playwright's event loop must not outlive it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("GLM_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium, or set GLM_CHROMIUM")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium: Browser) -> BrowserContext:
    opened = chromium.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(20_000)
    return opened


@pytest.fixture(scope="module")
def png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def running(png: bytes) -> Iterator[tuple[Scripted, str]]:
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    tools = ToolRegistry([add]).tools.values()
    scripted = Scripted(Workbench(Interpreters(lambda: PictureExecutor(png)), list(tools)))
    with serving(scripted.app) as url:
        yield scripted, url


@pytest.fixture
def scripted(running: tuple[Scripted, str]) -> Scripted:
    running[0].reset()
    return running[0]


@pytest.fixture
def url(running: tuple[Scripted, str]) -> str:
    return running[1]


SharedPage = tuple["Watched", "Page"]


class Watched:
    """Pages of one test, and what they must not do."""

    def __init__(self, context: BrowserContext) -> None:
        self._context = context
        self._pages: list[Page] = []
        self.hosts: set[str] = set()
        self.faults: list[str] = []

    def open(self, url: str, script: str = "") -> Page:
        """Opens a page in a browser that has never seen it.

        Args:
            script: run in the page before its own.
        """
        page = self._context.new_page()
        page.add_init_script(script)
        self._pages.append(page)
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._hear)
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        session = self._context.new_cdp_session(page)
        session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
        page.goto(url)
        return page

    def check(self, url: str) -> None:
        """Fails when there was an error, a broken policy, or a request to any other host."""
        assert self.faults == []
        assert self.hosts <= {urlsplit(url).netloc}

    def close(self) -> None:
        for page in self._pages:
            page.close()

    def _note(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def _hear(self, message: Any) -> None:
        # What the network did is the test's own doing; a policy that was broken is a fault.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")


@pytest.fixture
def watched(context: BrowserContext, url: str) -> Iterator[Watched]:
    opened = Watched(context)
    yield opened
    opened.close()
    opened.check(url)


@pytest.fixture
def page(watched: Watched, scripted: Scripted, url: str) -> Page:
    return watched.open(url)


@pytest.fixture(scope="module")
def shared(context: BrowserContext, running: tuple[Scripted, str]) -> Iterator[SharedPage]:
    watched = Watched(context)
    yield watched, watched.open(running[1])
    watched.close()


@pytest.fixture
def shared_page(shared: SharedPage, scripted: Scripted, url: str) -> Iterator[Page]:
    """One page for all tests of a file, with a new conversation for each: loading takes longest."""
    watched, page = shared
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="New conversation").first.click()
    yield page
    watched.check(url)
