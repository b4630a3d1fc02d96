"""The layout of rows against a hand-made example and against a plain transcription of the rules."""

import numpy as np
import pytest

from glm_core.data.batch import IGNORE
from glm_core.data.layout import SpecialIds, blank_sample, causal_sample, suffix_sample

EOS, CLS, MASK, SMASK, GMASK, SOP, EOP, DBLOCK = range(100, 108)
IDS = SpecialIds(EOS, CLS, MASK, SMASK, GMASK, SOP, EOP, DBLOCK)


def as_rows(sample):
    return (
        sample.input_ids.tolist(),
        sample.labels.tolist(),
        sample.position_ids[0].tolist(),
        sample.position_ids[1].tolist(),
        sample.segments,
    )


def test_layout_is_the_papers_figure_when_x3_and_x5_x6_are_blanked():
    # arXiv 2103.10360, figure 2: x1..x6 with spans [x3] and [x5 x6], the second one first;
    # there positions count from 1, here [CLS] is position 0
    text = np.array([CLS, 1, 2, 3, 4, 5, 6])
    sample = blank_sample(text, np.array([3, 5]), np.array([1, 2]), np.array([1, 0]), MASK, IDS)
    x = IGNORE
    assert as_rows(sample) == (
        [CLS, 1, 2, MASK, 4, MASK, SOP, 5, 6, SOP, 3],
        [x, x, x, x, x, x, 5, 6, EOP, 3, EOP],
        [0, 1, 2, 3, 4, 5, 5, 5, 5, 3, 3],
        [0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 2],
        ((11, 6),),
    )


def test_layout_has_no_eop_when_the_blank_is_the_texts_end():
    sample = suffix_sample(np.array([CLS, 1, 2, 3, 4]), 3, GMASK, IDS)
    x = IGNORE
    assert as_rows(sample) == (
        [CLS, 1, 2, GMASK, SOP, 3],
        [x, x, x, x, 3, 4],
        [0, 1, 2, 3, 3, 3],
        [0, 0, 0, 0, 1, 2],
        ((6, 4),),
    )


def test_positions_go_on_after_the_context_when_asked():
    # GLM-130B numbers [gMASK] fillings on; everything else stays as it is
    text = np.array([CLS, 1, 2, 3, 4])
    suffix = suffix_sample(text, 3, GMASK, IDS, positions_go_on=True)
    assert suffix.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5]
    one = (np.array([1]), np.array([2]), np.array([0]), GMASK, IDS)
    inner = blank_sample(text, *one, positions_go_on=True)
    assert inner.input_ids.tolist() == [CLS, GMASK, 3, 4, SOP, 1, 2]
    assert inner.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 2, 3]]


def test_labels_are_the_next_tokens_when_causal():
    sample = causal_sample(np.array([CLS, 1, 2, 3]))
    assert as_rows(sample) == ([CLS, 1, 2], [1, 2, 3], [0, 1, 2], [0, 0, 0], ((3, 0),))


def test_fillings_hide_tokens_but_not_sop_when_dblock_is_asked():
    text = np.array([CLS, 1, 2, 3, 4])
    hidden = np.array([True, True, False, True])  # sop, 1, 2, then what would be 3
    sample = blank_sample(
        text, np.array([1]), np.array([3]), np.array([0]), MASK, IDS, hidden_A=hidden
    )
    assert sample.input_ids.tolist() == [CLS, MASK, 4, SOP, DBLOCK, 2, DBLOCK]
    assert sample.labels.tolist() == [IGNORE] * 3 + [1, 2, 3, EOP]


def transcription(text, spans, order, mask_id):
    """Rows from the rules in words: span by span, token by token."""
    context, positions, mask_of = [], [], {}
    column = 0
    while column < len(text):
        inside = [span for span in spans if span[0] <= column < span[1]]
        if inside:
            mask_of[inside[0]] = len(context)
            context.append(mask_id)
            column = inside[0][1]
        else:
            context.append(text[column])
            column += 1
        positions.append(len(positions))
    inputs, labels, blocks = list(context), [IGNORE] * len(context), [0] * len(context)
    for index in order:
        start, end = spans[index]
        inputs += [SOP, *text[start:end]]
        labels += [*text[start:end], EOP]
        positions += [mask_of[spans[index]]] * (end - start + 1)
        blocks += list(range(1, end - start + 2))
    return inputs, labels, positions, blocks, ((len(inputs), len(context)),)


@pytest.mark.parametrize("seed", range(30))
def test_layout_equals_a_transcription_when_spans_are_random(seed):
    rng = np.random.default_rng(seed)
    text = np.concatenate(([CLS], rng.integers(0, 100, int(rng.integers(5, 60)))))
    cuts = np.sort(rng.permutation(np.arange(1, len(text) + 1))[: 2 * int(rng.integers(1, 3))])
    spans = [(int(a), int(b)) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    order = rng.permutation(len(spans))
    starts, lengths = np.array([a for a, _ in spans]), np.array([b - a for a, b in spans])
    sample = blank_sample(text, starts, lengths, order, SMASK, IDS)
    assert as_rows(sample) == transcription(text.tolist(), spans, order.tolist(), SMASK)


def test_adjacent_spans_keep_a_mask_each_when_sentences_follow_each_other():
    text = np.array([CLS, 1, 2, 3, 4])
    spans = [(1, 3), (3, 5)]
    sample = blank_sample(text, np.array([1, 3]), np.array([2, 2]), np.array([1, 0]), SMASK, IDS)
    assert as_rows(sample) == transcription(text.tolist(), spans, [1, 0], SMASK)
    assert sample.input_ids[:3].tolist() == [CLS, SMASK, SMASK]
