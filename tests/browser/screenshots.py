"""Takes the pictures of the documentation.

    python -m tests.browser.screenshots docs/images

Blanks are filled by nano-text. The other answers are written here, for nano-text does not chat; the
code in them is run by the sandbox of this machine.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from glm_core.agent.executor import executor
from glm_core.chat.transcript import format_or_transcript
from glm_core.checkpoint.loading import load_model
from glm_core.infer.engine import Engine
from glm_core.serve.app import create_app
from glm_core.serve.interpreters import Interpreters
from glm_core.serve.models import ServedModel
from glm_core.serve.workbench import Workbench

from .scripted import Scripted, serving
from .steps import ask_and_wait, box, open_settings

MERGE = '''Walk through both lists at once and always take the smaller head:

```python
def merge(left: list[int], right: list[int]) -> list[int]:
    """Merges two sorted lists."""
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:  # <= keeps equal items in order
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]
```

| | |
|---|---|
| time | O(n + m) |
| space | O(n + m), for the result |

For long streams use `heapq.merge`, which yields items **one at a time**.'''
DRAW = """import numpy as np
import matplotlib.pyplot as plt

x = np.linspace(0, 4 * np.pi, 400)
plt.figure(figsize=(7, 2.6))
plt.plot(x, np.sin(x) * np.exp(-x / 8), color="#17695b")
plt.axhline(0, color="#bbb", linewidth=0.8)
plt.tight_layout()
plt.show()"""
CALL = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "python", "input": DRAW}}


def main(folder: Path) -> None:
    """Writes the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("GLM_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        with nano_text() as url:
            fill_blanks(browser, url, folder)
        interpreters = Interpreters(executor)
        scripted = Scripted(Workbench(interpreters))
        write_script(scripted)
        with serving(scripted.app) as url:
            chat(browser, url, folder)
        interpreters.close()
        browser.close()


@contextmanager
def nano_text() -> Iterator[str]:
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(*load_model("nano-text", progress=False)))
        format = format_or_transcript(engine.tokenizer, engine.layout)
        served = ServedModel(name="nano-text", engine=engine, chat_format=format)
        yield stack.enter_context(serving(create_app([served])))


def write_script(scripted: Scripted) -> None:
    scripted.say("Write a Python function that merges two sorted lists.", MERGE)
    scripted.say("Draw a damped oscillation.", "I will draw it.", {"tool_calls": [CALL]})
    scripted.say("[Image]", "The amplitude falls to *1/e* every eight units.")


def opened(browser: Browser, url: str, scheme: str, width: int, height: int) -> Page:
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=1.5,
    )
    page.goto(url)
    page.get_by_text("runs on this server").wait_for()
    return page


def save(page: Page, path: Path) -> None:
    """Writes a picture in 256 colours, a third of the size."""
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    taken.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def fill_blanks(browser: Browser, url: str, folder: Path) -> None:
    page = opened(browser, url, "light", 1120, 620)
    settings = open_settings(page)
    settings.get_by_label("Temperature", exact=True).fill("0")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Fill blanks", exact=True).click()
    area = page.get_by_label("Text with blanks")
    area.fill("This [MASK] takes a text and returns the number of [MASK] in it.")
    page.get_by_role("button", name="Fill", exact=True).click()
    page.get_by_role("button", name="Fill again").wait_for()
    save(page, folder / "page_fill.png")
    page.close()


def chat(browser: Browser, url: str, folder: Path) -> None:
    for scheme, width, height in (("light", 1120, 980), ("dark", 1120, 760), ("dark", 360, 720)):
        page = opened(browser, url, scheme, width, height)
        name = f"page_{scheme}" if width > 400 else "page_phone"
        ask_and_wait(page, "Write a Python function that merges two sorted lists.")
        open_settings(page).get_by_label("Tools").check()
        page.keyboard.press("Escape")
        if scheme == "light":
            page.get_by_role("button", name="New conversation").first.click()
            ask_and_wait(page, "Draw a damped oscillation.")
        box(page).focus()
        page.mouse.move(0, 0)
        save(page, folder / f"{name}.png")
        page.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
