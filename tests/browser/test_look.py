"""Width, colours, keyboard and what screen readers hear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .scripted import Scripted
from .steps import ask_and_wait, box, last_answer, open_settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

RICH = """# A heading

Some *text* with `code`, a [link](https://example.org/averyveryveryveryveryverylongaddress) and

| a | table | with | many | columns | in | it |
|---|-------|------|------|---------|----|----|
| 1 | two   | 3    | 4    | 5       | 6  | 7  |

- a list
  1. in a list
- [x] a task

```python
def merge(left: list[int], right: list[int]) -> list[int]:  # a long line that does not fit
    return sorted([*left, *right])
```
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_when_the_screen_is_narrow(
    page: Page, scripted: Scripted, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 640})
    scripted.say("q", RICH)
    ask_and_wait(page, "q")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = page.evaluate(
        "[...document.querySelectorAll('.main button, .main textarea, .bubble, .code')]"
        ".filter(one => one.checkVisibility({visibilityProperty: true}))"
        ".map(one => one.getBoundingClientRect())"
        ".filter(box => box.left < 0 || box.right > 360.5).length"
    )
    assert outside == 0
    settings = open_settings(page)
    assert settings.bounding_box()["width"] <= 360  # type: ignore[index]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="q", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="q", exact=True).wait_for(state="hidden")
    page.get_by_role("button", name="Fill blanks", exact=True).click()
    page.get_by_label("Text with blanks").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_markdown_becomes_elements_when_it_is_complete(
    shared_page: Page, scripted: Scripted
) -> None:
    scripted.say("q", *RICH)
    ask_and_wait(shared_page, "q")
    answer = last_answer(shared_page)
    assert answer.get_by_role("heading", name="A heading").count() == 1
    assert answer.locator("td").all_inner_texts() == ["1", "two", "3", "4", "5", "6", "7"]
    assert answer.locator("ul ol li").inner_text() == "in a list"
    assert answer.get_by_role("checkbox").is_checked()
    assert answer.locator(".hljs-keyword").all_inner_texts() == ["def", "return"]


def test_formula_stays_as_written_when_markdown_would_take_it_apart(
    shared_page: Page, scripted: Scripted
) -> None:
    formulas = [r"\(a_1 * b_1 * c\)", r"\[\frac{a_i}{b_i}\]", "$$x_1 + x_2 = *y*$$"]
    first, *others = formulas
    scripted.say("q", f"Inline {first}.\n\n" + "\n\n".join(others) + "\n\nIt costs $5 or $6.")
    text = ask_and_wait(shared_page, "q")
    assert last_answer(shared_page).locator(".math").all_inner_texts() == formulas
    assert "It costs $5 or $6." in text


def test_code_is_copied_as_written_when_the_button_is_clicked(
    shared_page: Page, scripted: Scripted
) -> None:
    shared_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    scripted.say("q", "```js\nif (a < b && c)\n  x()\n```")
    ask_and_wait(shared_page, "q")
    last_answer(shared_page).get_by_role("button", name="Copy code").click()
    last_answer(shared_page).get_by_role("button", name="Copied").wait_for()
    assert shared_page.evaluate("navigator.clipboard.readText()") == "if (a < b && c)\n  x()"


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_colours_follow_the_system_when_nothing_else_was_chosen(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    page.get_by_role("button", name="Light", exact=True).click()
    assert background(page) == light
    page.reload()
    assert background(page) == light
    page.get_by_role("button", name="As the system").click()
    assert background(page) == dark


CONTRAST = """() => {
  const luminance = (text) => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const color = (name) => {
    const probe = document.createElement('i');
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return luminance(found);
  };
  const pairs = [['--ink', '--paper'], ['--soft', '--paper'], ['--soft', '--raised'],
    ['--soft', '--sunken'], ['--accent', '--paper'], ['--accent-ink', '--accent'],
    ['--accent', '--accent-wash'], ['--warn', '--warn-wash'], ['--danger', '--raised'],
    ['--ink', '--bubble'],
    ...['keyword', 'string', 'number', 'comment', 'title', 'type'].map(
      (name) => [`--hl-${name}`, '--code'])];
  return pairs.map(([text, ground]) => {
    const [high, low] = [color(text), color(ground)].sort((a, b) => b - a);
    return [`${text} on ${ground}`, (high + 0.05) / (low + 0.05)];
  }).filter(([, ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_when_measured_as_wcag_does(shared_page: Page, scheme: str) -> None:
    shared_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    assert shared_page.evaluate(CONTRAST) == []


FOCUSED = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const ring = getComputedStyle(one).outlineStyle !== 'none' || one.closest('.box') !== null;
  return [(one.ariaLabel ?? one.innerText).trim(), one.matches(':focus-visible') && ring];
}"""


def test_keyboard_reaches_all_when_tab_is_pressed(shared_page: Page, scripted: Scripted) -> None:
    ask_and_wait(shared_page, "tab order")
    shared_page.evaluate("document.querySelector('.skip').focus()")
    seen = []
    while (told := shared_page.evaluate(FOCUSED)) is not None and len(seen) < 40:
        seen.append(told)
        shared_page.keyboard.press("Tab")
    names = [name for name, _ in seen]
    assert [name for name, is_visible in seen if not is_visible] == []
    wanted = "Skip to the message box, New conversation, tab order, Settings, Try again, Message"
    assert [name for name in names if name in wanted.split(", ")] == wanted.split(", ")


def test_reader_hears_when_an_answer_is_complete(shared_page: Page, scripted: Scripted) -> None:
    status = shared_page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    scripted.say("q", "Spoken words.")
    ask_and_wait(shared_page, "q")
    status.get_by_text("Spoken words.").wait_for(state="attached")
    assert (
        shared_page.get_by_role("log").get_attribute("aria-live") == "off"
    )  # not every piece of it


def test_every_control_has_a_name_when_listed(shared_page: Page, scripted: Scripted) -> None:
    ask_and_wait(shared_page, "q")
    open_settings(shared_page)
    nameless = shared_page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, select, a')]"
        ".filter(one => !(one.ariaLabel || one.innerText?.trim() || one.labels?.length))"
        ".map(one => one.outerHTML)"
    )
    assert nameless == []


def test_message_is_kept_when_the_page_is_loaded_again(page: Page) -> None:
    box(page).fill("half a thought")
    page.reload()
    assert box(page).input_value() == "half a thought"
