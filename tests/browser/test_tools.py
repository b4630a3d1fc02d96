"""Documents, pictures, tools and blanks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Watched
from .scripted import Answer, Scripted
from .steps import ask, ask_and_wait, box, last_answer, open_settings, wait_until_done

if TYPE_CHECKING:
    from playwright.sync_api import Page

CODE = "print('<b>hi</b>')"
CALL = {
    "tool_calls": [
        {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "python", "input": CODE}}
    ]
}


def attach(page: Page, *paths: Path) -> None:
    page.get_by_label("Files to attach").set_input_files(list(paths))


def test_passages_are_asked_with_and_shown_when_a_document_is_there(
    page: Page, scripted: Scripted, tmp_path: Path
) -> None:
    path = tmp_path / "zoo.md"
    filler = "\n\n".join(f"Paragraph {i} is about nothing at all. " + "So. " * 90 for i in range(9))
    path.write_text(f"{filler}\n\nThe okapi sleeps <b>standing</b>.\n\n{filler}")
    attach(page, path)
    page.locator(".chip").filter(has_text="zoo.md").wait_for()
    ask(page, "How does the okapi sleep?")
    wait_until_done(page)
    content = scripted.requests[0]["messages"][0]["content"]
    assert content.startswith("Answer from these passages")
    assert "[1] (zoo.md)\n" in content and "The okapi sleeps" in content
    assert content.endswith("Question: How does the okapi sleep?")
    assert len(content) < 4096 + 600
    page.get_by_text("from your documents").click()
    source = last_answer(page).locator(".sources li").first
    assert "okapi sleeps <b>standing</b>" in source.inner_text()
    ask_and_wait(page, "And what else?")  # the question before is told without its passages
    assert scripted.requests[1]["messages"][0]["content"] == "How does the okapi sleep?"


def test_reason_is_told_when_a_document_cannot_be_read(
    page: Page, scripted: Scripted, tmp_path: Path
) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(b"%PDF-1.4 nothing")
    attach(page, path)
    page.locator(".notice").get_by_text("cannot be read as a PDF").wait_for()
    path = tmp_path / "program.exe"
    path.write_bytes(b"MZ")
    attach(page, path)
    page.locator(".notice").get_by_text("cannot be read: choose one of").wait_for()


def test_picture_is_sent_when_the_model_has_eyes(
    page: Page, scripted: Scripted, png: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "teal.png"
    path.write_bytes(png)
    attach(page, path)
    page.locator(".chip").filter(has_text="teal.png").wait_for()
    ask(page, "What colour?")
    wait_until_done(page)
    picture, text = scripted.requests[0]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert text == {"type": "text", "text": "What colour?"}
    shown = page.get_by_role("img", name="teal.png")
    assert shown.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [40, 20]
    page.reload()
    page.get_by_role("img", name="teal.png").wait_for()


def test_pictures_are_not_offered_when_the_model_has_no_eyes(
    watched: Watched, scripted: Scripted, url: str, png: bytes, tmp_path: Path
) -> None:
    scripted.abilities["images"] = False
    page = watched.open(url)
    page.get_by_role("button", name="Attach documents").wait_for()
    assert "image" not in str(page.get_by_label("Files to attach").get_attribute("accept"))
    path = tmp_path / "teal.png"
    path.write_bytes(png)
    attach(page, path)
    page.locator(".notice").get_by_text("has no eyes").wait_for()


def use_tools(page: Page) -> None:
    settings = open_settings(page)
    settings.get_by_label("Tools").check()
    page.keyboard.press("Escape")
    box(page).focus()


def test_code_is_run_and_its_picture_shown_when_tools_are_on(
    page: Page, scripted: Scripted
) -> None:
    use_tools(page)
    scripted.say("draw", "Let me see. ", CALL)
    scripted.say(f"ran {len(CODE)} characters\n[Image]", "It is **teal**.")
    text = ask_and_wait(page, "draw")
    assert "Let me see." in text and "It is teal." in text
    tool = last_answer(page).locator("details.tool")
    assert CODE in tool.locator(".code").inner_text()  # as text, its markup too
    assert f"ran {len(CODE)} characters" in tool.locator(".tool-result").inner_text()
    picture = tool.get_by_role("img")
    assert picture.evaluate("one => one.naturalWidth") == 40
    assert str(picture.get_attribute("src")).startswith("data:image/png;base64,")
    first, second = scripted.requests
    assert first["tools"][0] == {"type": "custom", "custom": {"name": "python"}}
    assert second["messages"][-1]["role"] == "tool"
    scripted.say("and now", "Done.")
    ask_and_wait(page, "and now")  # the call and its result are part of the conversation
    roles = [one["role"] for one in scripted.requests[2]["messages"]]
    assert roles == ["user", "assistant", "assistant", "tool", "assistant", "user"]
    page.reload()
    page.get_by_role("img", name="Picture that the code drew").wait_for()


def test_arguments_and_result_are_shown_when_a_function_is_called(
    page: Page, scripted: Scripted
) -> None:
    use_tools(page)
    call = {"name": "add", "arguments": '{"a": 2, "b": 40}'}
    wrong = {"name": "add", "arguments": '{"a": "two"}'}
    told = [
        {"index": index, "id": f"c{index}", "type": "function", "function": one}
        for index, one in enumerate((call, wrong))
    ]
    scripted.say("sum", {"tool_calls": told})
    ask_and_wait(page, "sum")
    first, second = last_answer(page).locator("details.tool").all()
    first.locator("summary").click()
    second.locator("summary").click()
    assert '"b": 40' in first.locator(".code").inner_text()
    assert first.locator(".tool-result").inner_text().strip() == "42"
    assert "failed" in second.locator("summary").inner_text()
    assert "arguments of add are wrong" in second.locator(".tool-result").inner_text()


def test_no_code_is_run_when_tools_are_off(page: Page, scripted: Scripted) -> None:
    ask_and_wait(page, "draw")
    assert "tools" not in scripted.requests[0]


def test_trouble_is_told_when_the_model_refuses_an_agent(page: Page, scripted: Scripted) -> None:
    use_tools(page)
    scripted.answers["draw"] = Answer(status=429, headers={"Retry-After": "7"})
    assert "busy" in ask_and_wait(page, "draw")


def test_tools_are_not_offered_when_the_model_knows_none(
    watched: Watched, scripted: Scripted, url: str
) -> None:
    scripted.abilities["tools"] = False
    page = watched.open(url)
    page.get_by_text("scripted runs on this server").wait_for()
    assert open_settings(page).get_by_label("Tools").count() == 0


@pytest.fixture
def filling(page: Page) -> Page:
    page.get_by_role("button", name="Fill blanks", exact=True).click()
    return page


def test_blanks_are_marked_when_they_are_filled(filling: Page, scripted: Scripted) -> None:
    text = "The [MASK] wraps a [MASK]."
    told = [(0, " with"), (0, "out"), (1, " <b>"), (1, "block</b>")]
    pieces = [{"blank": blank, "text": piece, "index": 0} for blank, piece in told]
    scripted.say(text, *pieces)
    area = filling.get_by_label("Text with blanks")
    area.fill(text)
    area.press("Control+Enter")
    filled = filling.get_by_label("Filled text")
    filled.get_by_role("button", name="Fill again").wait_for()
    assert filled.locator("mark").all_inner_texts() == ["without", "<b>block</b>"]
    assert filled.inner_text().strip() == "The without wraps a <b>block</b>."
    asked = scripted.requests[0]
    assert asked["prompt"] == text and asked["fill"] is True
    filled.get_by_role("button", name="Go on with this text").click()
    assert area.input_value() == "The without wraps a <b>block</b>."


def test_blank_is_inserted_when_the_button_is_clicked(filling: Page) -> None:
    area = filling.get_by_label("Text with blanks")
    area.fill("one two three")
    area.evaluate("one => one.setSelectionRange(4, 7)")
    filling.get_by_role("button", name="Insert blank").click()
    assert area.input_value() == "one [MASK] three"
    filling.get_by_text("1 blank", exact=True).wait_for()


def test_filling_is_not_offered_when_the_model_has_no_blanks(
    watched: Watched, scripted: Scripted, url: str
) -> None:
    scripted.abilities["fill"] = False
    page = watched.open(url)
    page.get_by_text("scripted runs on this server").wait_for()
    assert page.get_by_role("button", name="Fill blanks", exact=True).count() == 0
