"""What a person does on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def box(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def ask(page: Page, text: str) -> None:
    box(page).fill(text)
    box(page).press("Enter")


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer")


def last_answer(page: Page) -> Locator:
    return answers(page).last


def wait_until_done(page: Page) -> None:
    page.locator(".answer").last.wait_for()
    page.locator(".answer.is-busy").wait_for(state="detached")


def ask_and_wait(page: Page, text: str) -> str:
    ask(page, text)
    wait_until_done(page)
    return last_answer(page).inner_text()


def open_settings(page: Page) -> Locator:
    page.get_by_role("button", name="Settings", exact=True).click()
    return page.get_by_role("complementary", name="Settings")
