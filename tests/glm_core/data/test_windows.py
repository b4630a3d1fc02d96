import numpy as np
import pytest

from glm_core.data.sentences import SentenceEnds
from glm_core.data.shards import Shard, ShardWriter
from glm_core.data.windows import Windows
from glm_core.tokenizer import ByteBPETokenizer

CLS = 259


@pytest.fixture(scope="module")
def bytes_tokenizer():
    return ByteBPETokenizer.train([], 264)


@pytest.fixture
def make(tmp_path, bytes_tokenizer):
    def build(documents, size, seed=0):
        writer = ShardWriter(tmp_path, "train", 1000, "x")
        for document in documents:
            writer.add(document)
        writer.close()
        shard = Shard(tmp_path, "train")
        return Windows(shard, size, seed, CLS, SentenceEnds(bytes_tokenizer))

    return build


def numbered(count):
    """Tokens without any sentence end, each as often as any other: letters only."""
    return [(ord("a") - 33 + i % 26) for i in range(count)]


def test_every_window_is_read_once_when_an_epoch_is_over(make):
    windows = make([numbered(1000)], 11)
    first = sorted(int(start) for start in windows._epoch_starts(0))
    assert len(set(first)) == windows.per_epoch == len(first)
    assert set(np.diff(first)) == {10}
    assert 0 <= first[0] < 10
    assert first[-1] + 10 <= 1000


def test_order_and_offset_differ_when_the_epoch_does(make):
    windows = make([numbered(5000)], 11)
    first, second = (windows._epoch_starts(epoch).copy() for epoch in (0, 1))
    assert first.tolist() != second.tolist()
    assert len({int(windows._epoch_starts(epoch)[0]) % 10 for epoch in range(30)}) > 5
    assert windows._epoch_starts(0).tolist() == first.tolist()


def test_order_differs_when_the_seed_does(make):
    assert (
        make([numbered(500)], 11, seed=1)._epoch_starts(0).tolist()
        != make([numbered(500)], 11, seed=2)._epoch_starts(0).tolist()
    )


def test_text_has_cls_and_the_size_when_the_corpus_is_large(make):
    windows = make([numbered(300)], 17)
    for epoch in range(3):
        for index in range(windows.per_epoch):
            text = windows.text(epoch, index)
            assert len(text) == 17
            assert text[0] == CLS


def test_text_begins_at_a_sentence_when_one_begins_nearby(make, bytes_tokenizer):
    sentence = bytes_tokenizer.encode("The end of it. ")
    windows = make([sentence * 200], 200)
    texts = [bytes_tokenizer.decode(windows.text(0, i)) for i in range(windows.per_epoch)]
    assert all(text.startswith((" The end", "The end")) for text in texts)


def test_paragraph_wins_when_a_sentence_is_nearer(make, bytes_tokenizer):
    text = bytes_tokenizer.encode("One. Two.\n\nThree and four")
    windows = make([text * 200], 400)
    starts = {bytes_tokenizer.decode(windows.text(e, 0))[:5] for e in range(8)}
    assert starts == {"Three"}


@pytest.mark.parametrize("count", [2, 9, 10, 11, 19])
def test_text_is_whole_when_the_corpus_is_smaller_than_a_window(make, count):
    windows = make([numbered(count)], 11)
    for epoch in range(20):
        for index in range(windows.per_epoch):
            assert len(windows.text(epoch, index)) == 1 + min(count, 10)


def test_error_names_the_split_when_there_is_no_text(make):
    with pytest.raises(ValueError, match=r"shard train in .* has 0 tokens: the split is empty"):
        make([], 11)
