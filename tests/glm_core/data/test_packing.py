import numpy as np
import pytest

from glm_core.data.batch import Sample
from glm_core.data.packing import pack, split_documents, split_short
from glm_core.data.sentences import SentenceEnds

CLS, EOS = 200, 201


def make_sample(size, prefix):
    ids = np.arange(size)
    return Sample(ids, ids + 10, np.stack([ids, ids * 0 + 1]), ((size, prefix),))


def test_samples_stand_side_by_side_when_packed():
    row = pack([make_sample(3, 2), make_sample(2, 0)])
    assert row.input_ids.tolist() == [0, 1, 2, 0, 1]
    assert row.labels.tolist() == [10, 11, 12, 10, 11]
    assert row.position_ids.tolist() == [[0, 1, 2, 0, 1], [1] * 5]
    assert row.segments == ((3, 2), (2, 0))


def test_sample_is_itself_when_packed_alone():
    sample = make_sample(3, 2)
    assert pack([sample]) is sample


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ([CLS, 1, 2], [[CLS, 1, 2]]),
        ([CLS, 1, EOS, 2, 3, EOS], [[CLS, 1, EOS], [CLS, 2, 3, EOS]]),
        ([CLS, EOS, 1], [[CLS, 1]]),
        ([CLS, 1, EOS, EOS, 2], [[CLS, 1, EOS], [CLS, 2]]),
        ([CLS, EOS, EOS], [[CLS, EOS, EOS]]),
    ],
)
def test_documents_are_separated_when_a_text_has_several(text, documents):
    split = split_documents(np.array(text), CLS, EOS)
    assert [part.tolist() for part in split] == documents


def test_parts_fill_the_row_when_a_text_is_cut_short(tokenizer):
    text = np.concatenate(([tokenizer.cls_id], np.full(100, tokenizer.encode("a")[0])))
    parts = split_short(text, 32, tokenizer.cls_id, SentenceEnds(tokenizer))
    assert [len(part) for part in parts] == [33, 33, 33, 5]
    assert all(part[0] == tokenizer.cls_id for part in parts)


def test_part_begins_at_a_sentence_when_one_begins_early(tokenizer):
    ids = tokenizer.encode("of it. The name holds a value of file and of block and of name")
    text = np.array([tokenizer.cls_id, *ids])
    (part,) = split_short(text, 200, tokenizer.cls_id, SentenceEnds(tokenizer))
    assert tokenizer.decode(part).startswith((" The name", "of it"))
