import pytest

from glm_core.data.documents import HELDOUT, TRAIN, Document, share_of
from glm_core.data.spool import Spool


def documents(count, split=TRAIN):
    return [Document(f"d{i}", f"text {i} é\ud800", split) for i in range(count)]


def test_documents_come_back_when_spooled(tmp_path):
    with Spool(tmp_path / "x") as spool:
        spool.fill([*documents(3), Document("h", "held", HELDOUT)], "s", True)
        assert [d.name for d in spool.documents()] == ["d0", "d1", "d2", "h"]
        assert list(spool.texts(HELDOUT)) == ["held"]
        assert next(iter(spool.texts(TRAIN))) == "text 0 é?"
        assert spool.summary(HELDOUT)["bytes"] == 4
        assert spool.summary(TRAIN)["documents"] == 3
    assert not (tmp_path / "x").exists()


def test_batches_hold_about_the_size_when_iterated(tmp_path):
    with Spool(tmp_path / "x") as spool:
        spool.fill(documents(10), "s", False)
        batches = list(spool.batches(25))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


def test_one_document_is_held_out_when_chance_held_out_none(tmp_path):
    with Spool(tmp_path / "x") as spool:
        spool.fill(documents(5), "s", True)
        held = [d.name for d in spool.documents() if d.split == HELDOUT]
    assert held == [min((f"d{i}" for i in range(5)), key=share_of)]


def test_none_is_held_out_when_none_is_wanted(tmp_path):
    with Spool(tmp_path / "x") as spool:
        spool.fill(documents(5), "s", False)
        assert spool.summary(HELDOUT)["documents"] == 0


def test_error_names_the_source_when_it_is_empty(tmp_path):
    with (
        Spool(tmp_path / "x") as spool,
        pytest.raises(ValueError, match=r"data\.source='nothing' has no text"),
    ):
        spool.fill([], "nothing", True)


@pytest.mark.parametrize(("count", "split"), [(1, TRAIN), (2, HELDOUT)])
def test_error_names_the_source_when_nothing_is_left_to_train_on(tmp_path, count, split):
    with (
        Spool(tmp_path / "x") as spool,
        pytest.raises(ValueError, match=r"data\.source='s' has too little text"),
    ):
        spool.fill(documents(count, split), "s", True)
