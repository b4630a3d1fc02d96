"""Nothing that a model, a tool or a file says becomes an element of its own making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import SharedPage
from .scripted import Scripted
from .steps import ask_and_wait, last_answer

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = {
    "script": "<script>window.hit=1;alert(1)</script>",
    "image": '<img src=x onerror="window.hit=1">',
    "frame": "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "svg": "<svg onload='window.hit=1'><a xlink:href='javascript:window.hit=1'>x</a></svg>",
    "style": "<style>body{display:none}</style>",
    "link": "[press](javascript:window.hit=1)",
    "encoded link": "[press](&#106;avascript:window.hit=1) [p](JaVaScRiPt:window.hit=1)",
    "data link": "[press](data:text/html,<script>window.hit=1</script>)",
    "automatic link": "<javascript:window.hit=1>",
    "remote picture": "![secret](https://example.org/leak?q=1) ![s](//example.org/x.png)",
    "remote link": "[ok](https://example.org/page)",
    "reference": "![a][b]\n\n[b]: https://example.org/leak.png",
    "heading": "# <img src=https://example.org/x onerror=window.hit=1>",
    "table": "|a|b|\n|-|-|\n|<img src=x onerror=window.hit=1>|[x](javascript:window.hit=1)|",
    "language": '```"><img src=x onerror=window.hit=1>\ncode\n```',
    "in code": "```html\n<img src=x onerror=window.hit=1></code></pre><script>hit=1</script>\n```",
    "open fence": "```python\n<img src=x onerror=window.hit=1>",
    "open link": "[text](javascript:window.hit=1",
    "entity": "&lt;img src=x onerror=window.hit=1&gt; &#0; &#xD800; &#99999999;",
    "formula": r"\(<img src=x onerror=window.hit=1>\) $$<script>hit=1</script>$$",
    "title": '[a](https://example.org "x\\" onmouseover=window.hit=1")',
}
ALLOWED = (
    "A ARTICLE BLOCKQUOTE BR BUTTON CODE DEL DIV EM FIGCAPTION FIGURE H3 H4 H5 H6 HR INPUT LI OL P "
    "PATH PRE SMALL SPAN STRONG TABLE TBODY TD TH THEAD TR UL SVG"
).split()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_stays_text_when_it_would_be_markup(
    shared_page: Page, scripted: Scripted, text: str
) -> None:
    scripted.say("q", *text, "\n\nthe end")  # one character at a time: every unfinished state too
    ask_and_wait(shared_page, "q")
    tags = last_answer(shared_page).evaluate(
        "node => [...node.querySelectorAll('*')].map(one => one.tagName.toUpperCase())"
    )
    assert set(tags) <= set(ALLOWED)
    handlers = last_answer(shared_page).evaluate(
        "node => [...node.querySelectorAll('*')].flatMap(one => one.getAttributeNames())"
        ".filter(name => name.startsWith('on') || name === 'srcdoc' || name === 'style')"
    )
    assert handlers == []
    for link in last_answer(shared_page).locator("a").all():
        assert str(link.get_attribute("href")).startswith("https://example.org")
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert link.get_attribute("target") == "_blank"
    for link in last_answer(shared_page).locator("a, code, p").all():
        link.dispatch_event("mouseover")
    assert shared_page.evaluate("window.hit") is None


def test_user_sees_what_was_written_when_it_is_markup(
    shared_page: Page, scripted: Scripted
) -> None:
    scripted.say("q", HOSTILE["image"])
    assert HOSTILE["image"] in ask_and_wait(shared_page, "q")


def test_own_message_stays_text_when_it_is_markup(shared_page: Page, scripted: Scripted) -> None:
    ask_and_wait(shared_page, HOSTILE["image"])
    assert shared_page.get_by_label("You").locator("img").count() == 0
    assert shared_page.locator(".is-current .entry-title").inner_text() == HOSTILE["image"]


def test_reordering_is_shown_when_a_text_holds_it(shared_page: Page, scripted: Scripted) -> None:
    scripted.say("q", "if access \u202e⁦ admin\u2069\n\n```python\nif x:  # \u202e hidden\n```")
    ask_and_wait(shared_page, "q")
    marks = last_answer(shared_page).locator(".invisible").all_inner_texts()
    assert marks == ["RLO", "LRI", "PDI", "RLO"]


@pytest.mark.parametrize(
    "text",
    ["x" * 50_000, "word " * 20_000, "*" * 15_000, "[" * 15_000, "> " * 8_000, "- " * 3_000 + "x"],
    ids=["line", "words", "stars", "brackets", "quotes", "lists"],
)
def test_page_stays_alive_when_a_text_is_extreme(
    shared_page: Page, scripted: Scripted, text: str
) -> None:
    scripted.say("q", text)
    ask_and_wait(shared_page, "q")
    assert shared_page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    scripted.say("next", "fine")
    assert "fine" in ask_and_wait(shared_page, "next")


def test_policy_forbids_more_when_the_page_itself_tries(shared: SharedPage) -> None:
    watched, page = shared
    tries = {
        "element": "document.body.innerHTML = '<b>x</b>'",
        "script": "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.hit = 1'}))",
        "evaluation": "setTimeout('window.hit = 1')",
    }
    for name, code in tries.items():
        refused = page.evaluate(
            f"() => {{ try {{ {code}; return '' }} catch (e) {{ return '' + e }} }}"
        )
        assert "TrustedHTML" in refused or "TrustedScript" in refused, name
    remote = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert remote == "refused"
    assert page.evaluate("window.hit") is None
    watched.faults.clear()  # these were the test's own
    watched.hosts.discard("example.org")


def test_import_is_tamed_when_a_file_is_hostile(shared_page: Page, tmp_path: Path) -> None:
    pictures = [{"url": "https://example.org/leak.png", "name": "x"}, {"url": "javascript:hit=1"}]
    steps = [{"kind": "text", "text": 5}, {"kind": "call", "result": {"pictures": ["//x.org/a"]}}]
    messages = [
        {"role": "user", "text": "hello", "pictures": pictures},
        {"role": "assistant", "steps": steps, "state": "writing", "sources": "none"},
        7,
    ]
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps({"messages": messages, "title": ["x"], "sampling": {"top_k": "a"}}))
    shared_page.get_by_label("Conversations to import").set_input_files(path)
    shared_page.get_by_text("hello").wait_for()
    assert shared_page.locator(".messages img").count() == 0


def test_page_starts_when_its_storage_is_damaged(page: Page, scripted: Scripted) -> None:
    page.evaluate("localStorage.setItem('glm.conversation.x', '{broken')")
    page.evaluate("localStorage.setItem('glm.conversation.y', 'null')")
    page.evaluate("localStorage.setItem('glm.theme', 'purple')")
    page.reload()
    page.get_by_role("button", name="New conversation").first.click()
    page.get_by_text("scripted runs on this server").wait_for()
