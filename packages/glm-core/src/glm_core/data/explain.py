"""Shows a sample the way the model sees it: tokens, both positions, labels, and the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glm_core.attention.spec import materialize
from glm_core.data.batch import IGNORE, Sample, collate
from glm_core.data.layout import SpecialIds
from glm_core.data.sentences import SentenceEnds
from glm_core.data.span_corruption import BlankInfilling
from glm_core.infer.blanks import blank_prompt
from glm_core.infer.layout import BlankLayout
from glm_core.tokenizer.protocol import Tokenizer

SEES, HIDDEN = "●", "·"
PICTURE_COLUMNS = 160


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row: what goes in, where it stands, what is to come out."""

    index: int
    token: str
    token_id: int
    position: int
    block_position: int
    label: str | None
    label_id: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row and its mask, in words and dots.

    Fields:
        title: one line about the row.
        columns: all columns of the row.
        prefix_len: columns that every column sees.
        mask: one string per query column, ● where it sees the key column and · where not.
    """

    title: str
    columns: list[Column]
    prefix_len: int
    mask: list[str]

    def as_text(self) -> str:
        """A table of the columns and a picture of the mask."""
        return "\n".join([self.title, "", *self._table(), "", *self._picture()])

    def as_json(self) -> dict[str, Any]:
        """The same as plain data; mask rows are strings of 1 and 0."""
        return {
            "title": self.title,
            "prefix_len": self.prefix_len,
            "tokens": [
                {
                    "index": column.index,
                    "token": column.token,
                    "id": column.token_id,
                    "position": column.position,
                    "block_position": column.block_position,
                    "label": column.label,
                    "label_id": column.label_id,
                }
                for column in self.columns
            ],
            "mask": [row.replace(SEES, "1").replace(HIDDEN, "0") for row in self.mask],
        }

    def _table(self) -> list[str]:
        shown = [_quoted(column.token) for column in self.columns]
        width = max(len("token"), *map(len, shown))
        lines = [f"{'#':>4}  {'token':<{width}}  {'pos':>4}  {'block':>5}  label"]
        for column, token in zip(self.columns, shown, strict=True):
            label = HIDDEN if column.label is None else _quoted(column.label)
            lines.append(
                f"{column.index:>4}  {token:<{width}}  {column.position:>4}  "
                f"{column.block_position:>5}  {label}"
            )
        return lines

    def _picture(self) -> list[str]:
        if len(self.mask) > PICTURE_COLUMNS:
            return [f"mask: left out, {len(self.mask)} columns are more than {PICTURE_COLUMNS}"]
        numbers = "".join(str(index // 10 % 10) for index in range(len(self.mask)))
        digits = "".join(str(index % 10) for index in range(len(self.mask)))
        head = [
            f"mask: each line is a query, each column a key; {SEES} sees it, {HIDDEN} does not",
            f"      {numbers}",
            f"      {digits}",
        ]
        return head + [f"{index:>4}  {row}" for index, row in enumerate(self.mask)]


def explain_training(
    tokenizer: Tokenizer, text: str, mode: str, seed: int, mask_ratio: float = 0.15
) -> Explanation:
    """A training row made from a text that is a document of its own.

    Args:
        mode: mask, sentence, gmask or causal.
        seed: decides which parts become blanks.

    Raises:
        ValueError: if the text is empty.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise ValueError("the text is empty: give it at least one word")
    text_ids = np.array([tokenizer.cls_id, *tokens, tokenizer.eos_id], dtype=np.int64)
    infilling = BlankInfilling(SpecialIds.of(tokenizer), SentenceEnds(tokenizer), mask_ratio)
    make = {
        "mask": infilling.mask,
        "sentence": infilling.sentence,
        "gmask": infilling.gmask,
        "causal": infilling.causal,
    }[mode]
    room = 3 * len(text_ids)  # enough for every token in a blank of its own
    sample = make(text_ids, room, np.random.default_rng(seed))
    prefix_len = sample.segments[0][1]
    title = (
        f"training, mode {mode}, seed {seed}: {prefix_len} columns of context, "
        f"{len(sample) - prefix_len} of {'text' if mode == 'causal' else 'fillings'}, "
        f"{int((sample.labels != IGNORE).sum())} labels"
    )
    return _explanation(tokenizer, sample, title)


def explain_prompt(tokenizer: Tokenizer, text: str) -> Explanation:
    """The row that generation starts from, for a text with blanks marked by the user.

    Each blank's filling is shown by its first column; the model's answer follows there, and a
    later blank's filling comes after the earlier answers.
    """
    layout = BlankLayout()
    prompt = blank_prompt(text, tokenizer, layout)
    size, num_blanks = len(prompt.context_ids), len(prompt.slots)
    total = size + num_blanks
    positions = np.zeros((2, total), dtype=np.int64)
    positions[0, :size] = np.arange(size)
    for number, slot in enumerate(prompt.slots):
        positions[:, size + number] = layout.position(size, slot, 0)
    ids = np.array([*prompt.context_ids, *[tokenizer.sop_id] * num_blanks], dtype=np.int64)
    sample = Sample(ids, np.full(total, IGNORE), positions, ((total, size),))
    title = f"prompt with {num_blanks} blank(s): {size} columns of context, answers follow"
    return _explanation(tokenizer, sample, title)


def _explanation(tokenizer: Tokenizer, sample: Sample, title: str) -> Explanation:
    size = len(sample)
    mask = collate([sample], size, tokenizer.pad_id).mask
    visible = materialize(mask, 1, size, size, 0, torch.device("cpu"))[0, 0].tolist()
    rows = ["".join(SEES if cell else HIDDEN for cell in row) for row in visible]
    columns = [_column(tokenizer, sample, index) for index in range(size)]
    return Explanation(title, columns, sample.segments[0][1], rows)


def _column(tokenizer: Tokenizer, sample: Sample, index: int) -> Column:
    token, label = int(sample.input_ids[index]), int(sample.labels[index])
    return Column(
        index=index,
        token=tokenizer.token_name(token),
        token_id=token,
        position=int(sample.position_ids[0, index]),
        block_position=int(sample.position_ids[1, index]),
        label=None if label == IGNORE else tokenizer.token_name(label),
        label_id=None if label == IGNORE else label,
    )


def _quoted(token: str) -> str:
    """A token with its white space visible."""
    return token.replace("\n", "⏎").replace("\t", "→").replace(" ", "␣")
