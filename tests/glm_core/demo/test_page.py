from __future__ import annotations

import re
from html.parser import HTMLParser

from glm_core.demo import page

ATTACK = '<script>alert("x")</script>&\''


class Outline(HTMLParser):
    """Collects tags, checks that they are balanced, and keeps the text."""

    VOID = frozenset({"meta", "img", "line", "br", "path"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def outline(text):
    parser = Outline()
    parser.feed(text)
    assert parser.open == []
    return parser


def test_text_is_shown_as_written_when_it_looks_like_html():
    blocks = [
        page.paragraph(ATTACK),
        page.passage([(ATTACK, True), (ATTACK, False)], label=ATTACK),
        page.code(ATTACK),
        page.table([ATTACK], [[ATTACK]]),
        page.facts([(ATTACK, ATTACK)]),
        page.image(b"png", alt=ATTACK),
    ]
    section = page.Section(title=ATTACK, blocks=blocks, seconds=1.0)
    parsed = outline(page.render(ATTACK, ATTACK, [section], ATTACK))
    assert "script" not in parsed.tags
    assert parsed.text.count(ATTACK) == 15


def test_page_needs_no_other_file_when_rendered():
    section = page.Section(title="A", blocks=[page.image(b"png", alt="a", width=40)], seconds=0.0)
    text = page.render("T", "lead", [section], "footer")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"https?://|@import|url\(", text)


def test_pieces_are_marked_when_a_model_wrote_them():
    block = page.passage([("The ", False), ("with", True), (" statement", False)])
    assert "The <mark>with</mark> statement" in block


def test_cells_are_set_right_when_they_are_numbers():
    block = page.table(["a"], [["1,234.5"], ["-3%"], ["word"], ["1.2.3"], [""]])
    assert block.count("class=number") == 2
