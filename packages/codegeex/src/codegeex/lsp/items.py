"""Completions in the words of the protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lsprotocol import types

from codegeex.lsp.documents import Cursor
from codegeex.lsp.positions import column_of

_WORD = re.compile(r"\w*\Z")


def inline_items(texts: Sequence[str], span: types.Range) -> types.InlineCompletionList:
    """Returns completions that are shown where they would stand.

    Args:
        texts: each goes in the place of `span`.
        span: in one line.
    """
    return types.InlineCompletionList(
        [types.InlineCompletionItem(insert_text=text, range=span) for text in texts]
    )


def list_items(
    texts: Sequence[str], cursor: Cursor, encoding: str, model: str
) -> types.CompletionList:
    """Returns completions for an editor's list, which filters by the word before the cursor.

    Args:
        texts: go in at the cursor.
        encoding: what columns count.
        model: its name, told beside them.
    """
    found = _WORD.search(cursor.prefix)
    word = found.group() if found else ""
    end = cursor.position
    begin = types.Position(end.line, end.character - column_of(word, encoding))
    items = [
        types.CompletionItem(
            label=_label(word + text),
            kind=types.CompletionItemKind.Text,
            detail=model,
            documentation=word + text,
            sort_text=f"{index:02}",
            filter_text=word,
            insert_text_format=types.InsertTextFormat.PlainText,
            insert_text_mode=types.InsertTextMode.AsIs,
            text_edit=types.TextEdit(types.Range(begin, end), word + text),
        )
        for index, text in enumerate(texts)
    ]
    return types.CompletionList(is_incomplete=True, items=items)


def _label(text: str) -> str:
    """Returns what a list shows of a text: its first line that has something."""
    first, *others = text.strip().splitlines()
    return first.rstrip() + (" …" if others else "")
