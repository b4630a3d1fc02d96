"""The rows that blank infilling trains on, laid out from spans that somebody chose.

A sample reads `context | sop filling | sop filling ...`. In the context each blanked span is one
mask token. The fillings follow in the order given; each starts with sop, has the span's tokens as
labels and closes with eop. The context is visible to every column, the fillings are causal.

Every token has two positions. Position: its index in the context; all of a filling has the index
of its mask token. Block position: 0 in the context, 1, 2, ... within a filling (sop is 1).

Source: arXiv 2103.10360, sections 2.1 and 2.2.

Letters: T tokens of a text, K spans, A tokens of all fillings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glm_core.data.batch import IGNORE, Ints, Sample
from glm_core.tokenizer.protocol import Tokenizer


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the special tokens that samples are made of."""

    eos: int
    cls: int
    mask: int
    smask: int
    gmask: int
    sop: int
    eop: int
    dblock: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> SpecialIds:
        """Reads the ids from a tokenizer."""
        return cls(
            eos=tokenizer.eos_id,
            cls=tokenizer.cls_id,
            mask=tokenizer.mask_id,
            smask=tokenizer.smask_id,
            gmask=tokenizer.gmask_id,
            sop=tokenizer.sop_id,
            eop=tokenizer.eop_id,
            dblock=tokenizer.dblock_id,
        )


def blank_sample(
    text_T: Ints,
    starts_K: Ints,
    lengths_K: Ints,
    order_K: Ints,
    mask_id: int,
    ids: SpecialIds,
    hidden_A: np.ndarray | None = None,
    positions_go_on: bool = False,
) -> Sample:
    """Lays out a text with blanks.

    Args:
        text_T: the text, [CLS] first.
        starts_K: first column of each span, ascending.
        lengths_K: tokens of each span; spans do not overlap.
        order_K: in which order the fillings come: a permutation of 0..K-1.
        mask_id: the token that stands for a span.
        hidden_A: which tokens of the fillings are shown as dBLOCK, bool (A,); A counts the sop
            columns, where it has no effect.
        positions_go_on: number the fillings on from the context, as GLM-130B does for [gMASK],
            instead of giving them the index of their mask token.
    """
    kept_T = np.ones(len(text_T), dtype=bool)
    inside_A = np.repeat(starts_K - _exclusive_cumsum(lengths_K), lengths_K)
    kept_T[np.arange(len(inside_A)) + inside_A] = False
    kept_T[starts_K] = True
    context = text_T.copy()
    context[starts_K] = mask_id
    context = context[kept_T]
    mask_index_K = np.cumsum(kept_T)[starts_K] - 1

    sizes_K = lengths_K[order_K] + 1  # with sop, or eop among the labels
    first_K = _exclusive_cumsum(sizes_K)
    block_A = np.arange(int(sizes_K.sum())) - np.repeat(first_K - 1, sizes_K)
    label_at_A = np.repeat(starts_K[order_K] - 1, sizes_K) + block_A
    labels_A = text_T.take(label_at_A, mode="clip")
    labels_A[first_K + sizes_K - 1] = ids.eop
    inputs_A = text_T.take(label_at_A - 1, mode="clip")
    if hidden_A is not None:
        inputs_A[hidden_A] = ids.dblock
    inputs_A[first_K] = ids.sop
    position_A = np.repeat(mask_index_K[order_K], sizes_K)
    if positions_go_on:
        position_A = len(context) + np.arange(len(inputs_A))
    return _assemble(context, inputs_A, labels_A, position_A, block_A)


def suffix_sample(
    text_T: Ints, division: int, mask_id: int, ids: SpecialIds, positions_go_on: bool = False
) -> Sample:
    """Long generation: the text from column `division` on is to be predicted from what is before.

    The filling ends with the text itself, so no eop is a label here. `positions_go_on` as in
    `blank_sample`.
    """
    context = np.append(text_T[:division], mask_id)
    labels = text_T[division:]
    inputs = np.concatenate(([ids.sop], labels[:-1]))
    block = np.arange(1, len(labels) + 1)
    position = division + block if positions_go_on else np.full(len(labels), division)
    return _assemble(context, inputs, labels, position, block)


def causal_sample(text_T: Ints) -> Sample:
    """Plain next-token prediction over the whole text; no context, 1-D positions."""
    size = len(text_T) - 1
    positions = np.stack([np.arange(size), np.zeros(size, dtype=np.int64)])
    return Sample(text_T[:-1], text_T[1:], positions, ((size, 0),))


def _exclusive_cumsum(values: Ints) -> Ints:
    return np.cumsum(values) - values


def _assemble(
    context: Ints, inputs_A: Ints, labels_A: Ints, position_A: Ints, block_A: Ints
) -> Sample:
    """Joins the context and the fillings into one sample."""
    prefix_len = len(context)
    total = prefix_len + len(inputs_A)
    input_ids = np.concatenate((context, inputs_A))
    labels = np.full(total, IGNORE, dtype=np.int64)
    labels[prefix_len:] = labels_A
    positions = np.zeros((2, total), dtype=np.int64)
    positions[0, :prefix_len] = np.arange(prefix_len)
    positions[0, prefix_len:] = position_A
    positions[1, prefix_len:] = block_A
    return Sample(input_ids, labels, positions, ((total, prefix_len),))
