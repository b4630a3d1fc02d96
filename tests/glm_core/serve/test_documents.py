from __future__ import annotations

import math

import pytest

from glm_core.serve.documents import (
    MAX_CHARS,
    rank,
    read_document,
    readable_endings,
    split,
    words,
)


def pdf_of(*texts: str) -> bytes:
    """Writes a PDF by hand, with a page for each text."""
    count = len(texts)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, text in enumerate(texts):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R "
            f">> >> /Contents {5 + 2 * index} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    tail = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}{tail}".encode()


def test_paragraphs_share_a_passage_when_they_are_short() -> None:
    assert split("one\n\ntwo\n\n\n three \n") == ["one\n\ntwo\n\nthree"]
    assert split("a" * 300 + "\n\n" + "b" * 300) == ["a" * 300, "b" * 300]


@pytest.mark.parametrize(
    "text",
    ["A sentence of words. " * 200, "x" * 3000, "这是一个句子。" * 300, "line of text\n" * 300],
)
def test_passages_are_short_and_whole_when_a_text_is_long(text: str) -> None:
    passages = split(text)
    assert max(map(len, passages)) <= 500
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_nothing_is_split_when_there_is_nothing() -> None:
    assert split(" \n\n \n") == []


def test_words_are_pairs_when_a_script_has_no_spaces() -> None:
    assert words("The cats' 3 tests, größe") == ["the", "cat", "3", "test", "größe"]
    assert words("北京天气 x") == ["北京", "京天", "天气", "x"]
    assert words("猫") == ["猫"]


def test_scores_follow_the_formula_when_ranked() -> None:
    passages = ["cat dog", "cat cat cat bird fish fish", "dog", "tree"]

    def score(counts: list[int], length: int, holders: list[int]) -> float:
        average = (2 + 6 + 1 + 1) / 4
        total = 0.0
        for count, held in zip(counts, holders, strict=True):
            idf = math.log(1 + (4 - held + 0.5) / (held + 0.5))
            total += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / average))
        return total

    scores = [
        score([1, 0], 2, [2, 1]),
        score([3, 1], 6, [2, 1]),
        score([0, 0], 1, [2, 1]),
        score([0, 0], 1, [2, 1]),
    ]
    wanted = sorted((i for i in range(4) if scores[i] > 0), key=lambda i: -scores[i])
    assert rank("Cats and birds", passages) == wanted == [1, 0]


def test_nothing_fits_when_no_word_is_shared() -> None:
    assert rank("quantum", ["cat", "dog"]) == []
    assert rank("cat", []) == []
    assert rank("cat", ["", "cat"]) == [1]


def test_pages_are_counted_when_a_pdf_is_read() -> None:
    passages = read_document("Book.PDF", pdf_of("The first page.", "The okapi sleeps."))
    assert [(one.text, one.page) for one in passages] == [
        ("The first page.", 1),
        ("The okapi sleeps.", 2),
    ]


def test_text_is_read_when_it_has_a_mark_and_windows_lines() -> None:
    (passage,) = read_document("a.md", "\ufeffone\r\n\r\ntwo".encode())
    assert (passage.text, passage.page) == ("one\n\ntwo", 0)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.exe", b"MZ", "'a.exe' is of a kind that cannot be read: it must be one of .txt"),
        ("a", b"text", "of a kind that cannot be read"),
        ("a.txt", b"\xff\xfe\x00", "'a.txt' is no text in UTF-8"),
        ("a.txt", b"a\0b", "zero bytes"),
        ("a.txt", b" \n", "holds no text"),
        ("a.txt", b"x" * (MAX_CHARS + 1), "more than 2,000,000 characters"),
        ("a.pdf", b"%PDF-1.4 rubbish", "cannot be read as a PDF"),
        ("a.pdf", b"", "cannot be read as a PDF"),
        ("a.pdf", pdf_of(""), "holds no text"),
    ],
)
def test_document_is_refused_when_it_cannot_be_used(name: str, content: bytes, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_document(name, content)


def test_pdf_is_not_offered_when_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ".pdf" not in readable_endings()
    with pytest.raises(ValueError, match="of a kind that cannot be read"):
        read_document("a.pdf", pdf_of("text"))
