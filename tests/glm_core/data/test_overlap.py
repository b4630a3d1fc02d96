from glm_core.data.documents import HELDOUT, TRAIN, Document
from glm_core.data.overlap import without_overlap

WORDS = [f"word{i}" for i in range(60)]


def test_near_copies_go_when_training_text_has_most_of_their_words():
    train = Document("t", " ".join(WORDS), TRAIN)
    copied = " ".join([*WORDS[:30], "changed", *WORDS[31:]])
    fresh = " ".join(f"other{i}" for i in range(40))
    held = Document("h", f"{copied}\n\n{fresh}", HELDOUT)
    result = list(without_overlap([held, train], min_chars=20))
    assert [document.name for document in result] == ["h", "t"]
    assert result[0].text == fresh
    assert result[1] is train


def test_document_goes_when_too_little_of_it_is_left():
    train = Document("t", " ".join(WORDS), TRAIN)
    held = Document("h", " ".join(WORDS[5:50]), HELDOUT)
    assert [d.name for d in without_overlap([train, held], min_chars=20)] == ["t"]


def test_common_short_phrases_stay_when_they_are_below_13_words():
    train = Document("t", "Returns the number of items in a container.", TRAIN)
    held = Document("h", "Returns the number of items in a container.", HELDOUT)
    assert len(list(without_overlap([train, held], min_chars=5))) == 2


def test_nothing_changes_when_nothing_is_held_out():
    documents = [Document("t", "text", TRAIN)]
    assert list(without_overlap(documents, 10)) == documents
