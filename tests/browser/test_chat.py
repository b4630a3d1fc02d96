"""Talking: streaming, stopping, trying again, editing, keys, and what the page sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Watched
from .scripted import Answer, Scripted, endless
from .steps import answers, ask, ask_and_wait, box, last_answer, open_settings, wait_until_done

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_answer_is_shown_when_it_was_streamed(shared_page: Page, scripted: Scripted) -> None:
    scripted.say("Hi", "Hello ", "**there**", ".")
    assert "Hello there." in ask_and_wait(shared_page, "Hi")
    assert last_answer(shared_page).locator("strong").inner_text() == "there"
    (asked,) = scripted.requests
    assert asked["messages"] == [{"role": "user", "content": "Hi"}]
    assert asked["stream"] is True
    assert not {"temperature", "top_p", "seed"} & asked.keys()  # the server's own


def test_conversation_is_sent_again_when_it_goes_on(shared_page: Page, scripted: Scripted) -> None:
    scripted.say("one", "1")
    scripted.say("two", "2")
    ask_and_wait(shared_page, "one")
    ask_and_wait(shared_page, "two")
    roles = [(one["role"], one["content"]) for one in scripted.requests[1]["messages"]]
    assert roles == [("user", "one"), ("assistant", "1"), ("user", "two")]


def test_writing_stops_when_escape_is_pressed(shared_page: Page, scripted: Scripted) -> None:
    scripted.answers["go"] = endless()
    ask(shared_page, "go")
    shared_page.get_by_text("word word word").wait_for()
    shared_page.keyboard.press("Escape")
    wait_until_done(shared_page)
    assert "Stopped." in last_answer(shared_page).inner_text()
    assert scripted.cut.wait(5)  # the server is told by the dropped connection
    assert box(shared_page).is_enabled()


def test_writing_stops_when_the_button_is_clicked(shared_page: Page, scripted: Scripted) -> None:
    scripted.answers["go"] = endless()
    ask(shared_page, "go")
    shared_page.get_by_text("word word").wait_for()
    shared_page.get_by_role("button", name="Stop").click()
    wait_until_done(shared_page)
    assert scripted.cut.wait(5)
    shared_page.get_by_role("button", name="Send").wait_for()


def test_answer_is_replaced_when_it_is_tried_again(shared_page: Page, scripted: Scripted) -> None:
    scripted.say("q", "first")
    ask_and_wait(shared_page, "q")
    scripted.say("q", "second")
    shared_page.get_by_role("button", name="Try again").click()
    last_answer(shared_page).get_by_text("second").wait_for()
    assert answers(shared_page).count() == 1
    assert [len(one["messages"]) for one in scripted.requests] == [1, 1]


def test_last_message_is_edited_when_up_is_pressed(shared_page: Page, scripted: Scripted) -> None:
    scripted.say("wrong", "a")
    scripted.say("right", "b")
    ask_and_wait(shared_page, "wrong")
    box(shared_page).press("ArrowUp")
    editor = shared_page.get_by_label("Edit message", exact=True).and_(
        shared_page.locator("textarea")
    )
    assert editor.input_value() == "wrong"
    editor.fill("right")
    editor.press("Enter")
    last_answer(shared_page).get_by_text("b", exact=True).wait_for()
    assert answers(shared_page).count() == 1
    assert scripted.requests[1]["messages"] == [{"role": "user", "content": "right"}]


def test_edit_changes_nothing_when_it_is_left_with_escape(
    shared_page: Page, scripted: Scripted
) -> None:
    scripted.say("kept", "a")
    ask_and_wait(shared_page, "kept")
    box(shared_page).press("ArrowUp")
    shared_page.keyboard.press("Escape")
    assert shared_page.get_by_label("You").inner_text().strip() == "kept"
    assert shared_page.evaluate("document.activeElement.id") == "composer"


def test_line_is_broken_when_shift_enter_is_pressed(shared_page: Page, scripted: Scripted) -> None:
    box(shared_page).fill("a")
    box(shared_page).press("Shift+Enter")
    box(shared_page).press_sequentially("b")
    box(shared_page).press("Enter")
    wait_until_done(shared_page)
    assert scripted.requests[0]["messages"][0]["content"] == "a\nb"


def test_enter_does_not_send_when_a_word_is_being_composed(
    shared_page: Page, scripted: Scripted
) -> None:
    box(shared_page).fill("ni")
    shared_page.evaluate(
        "document.getElementById('composer').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    assert box(shared_page).input_value() == "ni"
    assert scripted.requests == []


def test_settings_are_sent_when_they_were_changed(page: Page, scripted: Scripted) -> None:
    settings = open_settings(page)
    settings.get_by_label("System prompt").fill("Be brief.")
    settings.get_by_label("Temperature", exact=True).fill("0.3")
    settings.get_by_label("Top-k", exact=True).fill("5")
    settings.get_by_label("Longest answer").fill("77")
    settings.get_by_label("Stop at").fill("END | ###")
    settings.get_by_label("Seed").fill("3")
    page.keyboard.press("Escape")
    ask_and_wait(page, "q")
    (asked,) = scripted.requests
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    wanted = {"temperature": 0.3, "top_k": 5, "max_tokens": 77, "seed": 3, "stop": ["END", "###"]}
    assert {name: asked[name] for name in wanted} == wanted


def test_settings_stay_when_the_page_is_loaded_again(page: Page, scripted: Scripted) -> None:
    open_settings(page).get_by_label("System prompt").fill("Be brief.")
    page.reload()
    assert open_settings(page).get_by_label("System prompt").input_value() == "Be brief."
    page.keyboard.press("Escape")
    ask_and_wait(page, "q")
    assert scripted.requests[0]["messages"][0]["content"] == "Be brief."


def test_page_works_when_the_browser_keeps_nothing(
    watched: Watched, scripted: Scripted, url: str
) -> None:
    forbid = "get() { throw new DOMException('forbidden', 'SecurityError') }"
    page = watched.open(
        url,
        "".join(
            f"Object.defineProperty(window, '{name}', {{{forbid}}});"
            for name in ("localStorage", "sessionStorage")
        ),
    )
    scripted.say("q", "Hello")
    assert "Hello" in ask_and_wait(page, "q")


def test_full_storage_is_told_when_a_conversation_does_not_fit(
    page: Page, scripted: Scripted
) -> None:
    page.evaluate("localStorage.setItem('other', 'x'.repeat(5 * 2 ** 20 - 2000))")
    scripted.say("q", "long " * 1000)
    ask_and_wait(page, "q")
    page.get_by_role("alert").get_by_text("no more room").wait_for()


def test_default_is_used_again_when_a_slider_is_reset(page: Page, scripted: Scripted) -> None:
    settings = open_settings(page)
    settings.get_by_label("Temperature", exact=True).fill("0.3")
    settings.get_by_role("button", name="Temperature: default").click()
    page.keyboard.press("Escape")
    ask_and_wait(page, "q")
    assert "temperature" not in scripted.requests[0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(status=429, headers={"Retry-After": "7"}), "busy"),
        (Answer(status=503), "told so"),
        (Answer(status=400), "told so"),
        (Answer(("half",), ends=False), "The connection ended before the answer did"),
        (Answer(("as long", " as may be"), finish_reason="length"), "Cut at its longest"),
    ],
    ids=["busy", "draining", "refused", "broken off", "cut"],
)
def test_trouble_is_told_when_the_server_has_some(
    shared_page: Page, scripted: Scripted, answer: Answer, told: str
) -> None:
    scripted.answers["q"] = answer
    text = ask_and_wait(shared_page, "q")
    assert told in text
    assert "".join(map(str, answer.pieces)) in text  # what came is kept
    scripted.say("q", "now it works")
    last_answer(shared_page).get_by_role("button", name="Try again").first.click()
    last_answer(shared_page).get_by_text("now it works").wait_for()


def test_page_recovers_when_the_server_was_gone(page: Page, scripted: Scripted) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    page.route("**/health", lambda route: route.abort())
    assert "cannot be reached" in ask_and_wait(page, "q")
    page.get_by_role("alert").filter(has_text="looks for the server").wait_for()
    page.unroute_all()
    scripted.say("q", "back")
    page.get_by_role("button", name="Try again").first.click()
    page.get_by_text("back", exact=True).wait_for()
    page.get_by_role("alert").wait_for(state="detached")


def test_key_is_asked_for_when_the_server_wants_one(
    watched: Watched, scripted: Scripted, url: str
) -> None:
    scripted.key = "a-good-key"
    page = watched.open(url)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill("a-bad-key")
    dialog.get_by_role("button", name="Use this key").click()
    dialog.get_by_text("refused this key").wait_for()
    dialog.get_by_label("Key").fill("a-good-key")
    dialog.get_by_role("button", name="Use this key").click()
    page.get_by_text("scripted runs on this server").wait_for()
    page.reload()  # this tab remembers it
    page.get_by_text("scripted runs on this server").wait_for()
    assert page.evaluate("localStorage.getItem('glm.key')") is None


def test_conversations_survive_when_the_page_is_loaded_again(
    page: Page, scripted: Scripted
) -> None:
    scripted.say("first question", "first answer")
    scripted.say("second question", "second answer")
    ask_and_wait(page, "first question")
    page.get_by_role("button", name="New conversation").first.click()
    ask_and_wait(page, "second question")
    page.reload()
    assert "second answer" in last_answer(page).inner_text()
    page.get_by_role("button", name="first question", exact=True).click()
    assert "first answer" in last_answer(page).inner_text()


def test_answer_is_kept_as_stopped_when_the_page_is_left(page: Page, scripted: Scripted) -> None:
    scripted.answers["go"] = endless()
    ask(page, "go")
    page.get_by_text("word word").wait_for()
    page.reload()
    text = last_answer(page).inner_text()
    assert "word word" in text
    assert "Stopped." in text


def test_conversation_is_renamed_and_deleted_when_asked_to(page: Page, scripted: Scripted) -> None:
    ask_and_wait(page, "some title")
    page.get_by_text("some title").first.hover()
    page.get_by_role("button", name="Rename some title").click()
    page.get_by_label("New title").fill("Better")
    page.get_by_label("New title").press("Enter")
    page.reload()
    page.get_by_role("button", name="Better", exact=True).hover()
    page.get_by_role("button", name="Delete Better").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="What is on your mind?").wait_for()
    page.reload()
    assert page.get_by_role("button", name="Better", exact=True).count() == 0


def test_conversations_come_back_when_exported_and_imported(
    page: Page, scripted: Scripted, tmp_path: Path
) -> None:
    scripted.say("keep me", "kept")
    ask_and_wait(page, "keep me")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all conversations").click()
    path = tmp_path / "saved.json"
    download.value.save_as(path)
    assert json.loads(path.read_text())["conversations"][0]["title"] == "keep me"
    page.evaluate("localStorage.clear()")
    page.reload()
    page.get_by_label("Conversations to import").set_input_files(path)
    last_answer(page).get_by_text("kept", exact=True).wait_for()


def test_import_is_refused_when_the_file_is_none_of_ours(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}')
    page.get_by_label("Conversations to import").set_input_files(path)
    page.locator(".notice").get_by_text("holds no conversation").wait_for()
