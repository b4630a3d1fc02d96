"""`glm serve --model nano-text`, and a person at the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .conftest import Watched
from .steps import answers, ask, box, last_answer, open_settings, wait_until_done

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

KEY = "key-of-the-test"


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The command itself, in a process of its own; gives the page's address."""
    command = [sys.executable, "-c", "import sys; from glm_core.cli import main; sys.exit(main())"]
    command += ["serve", "--model", "nano-text", "--port", "0"]
    environment = os.environ | {"GLM_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"page +(http://\S+)/", line):
                yield found[1]
                break
        process.terminate()
        process.stdout.read()
        assert process.wait(20) == 0


def test_person_types_reads_stops_and_reloads_when_nano_text_is_served(
    context: BrowserContext, served: str
) -> None:
    watched = Watched(context)
    page = watched.open(served)
    page.get_by_role("dialog").get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    page.get_by_text("nano-text runs on this server").wait_for()

    settings = open_settings(page)  # the likeliest words go on and on: there is time to stop them
    settings.get_by_label("Temperature", exact=True).fill("0")
    settings.get_by_label("Longest answer").fill("900")
    page.keyboard.press("Escape")

    box(page).press_sequentially("Tell me about lists.")
    box(page).press("Enter")
    text = last_answer(page).locator(".markdown")
    text.wait_for()
    first = text.inner_text()
    page.wait_for_function(
        "before => document.querySelector('.answer .markdown').innerText.length > before",
        arg=len(first),
    )  # it grows while one looks
    page.keyboard.press("Escape")
    wait_until_done(page)
    assert "Stopped." in last_answer(page).inner_text()
    stopped = text.inner_text()

    page.reload()
    assert answers(page).count() == 1
    assert last_answer(page).locator(".markdown").inner_text() == stopped

    page.get_by_role("button", name="New conversation").first.click()
    ask(page, "Write about Python.")
    last_answer(page).locator(".markdown").wait_for()
    page.get_by_role("button", name="Stop").click()
    wait_until_done(page)

    page.get_by_role("button", name="Fill blanks", exact=True).click()
    page.get_by_role("button", name="Fill", exact=True).click()
    page.get_by_role("button", name="Fill again").wait_for()
    assert len(page.get_by_label("Filled text").locator("mark").all_inner_texts()) == 2
    watched.close()
    watched.check(served)
