"""The wrapper of the sentencepiece library."""

from __future__ import annotations

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from glm_core.tokenizer.sentencepiece import PieceType, SentencePieces

CONTROL = 3


@pytest.fixture
def path(tmp_path, icetk_model):
    (tmp_path / "x.model").write_bytes(icetk_model)
    return tmp_path / "x.model"


def test_library_reads_what_protobuf_writes_when_pieces_are_appended(path, icetk_model):
    long = "x" * 300  # its length takes two bytes
    appended = [("[A]", PieceType.control), (long, PieceType.user_defined)]
    appended += [(f"<0x{byte:02X}>", PieceType.byte) for byte in range(256)]
    ours = SentencePieces(path, (), appended, byte_fallback=True)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(icetk_model)
    for piece, kind in appended:
        proto.pieces.add(piece=piece, score=0.0, type=int(kind))
    proto.trainer_spec.byte_fallback = True
    theirs = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    text = f"[A] {long} the 👋"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.find(long) == theirs.piece_to_id(long)
    assert ours.size == theirs.vocab_size()


def test_unknown_is_no_text_when_bytes_stand_in_for_it(path):
    names = [(f"<0x{byte:02X}>", PieceType.byte) for byte in range(256)]
    assert "<unk>" not in SentencePieces(path).controls
    assert "<unk>" in SentencePieces(path, (), names, byte_fallback=True).controls


def test_piece_is_no_text_when_it_is_made_a_control_piece(path, icetk_model):
    marks = ["<n>", "▁the", "no such piece", "▁"]
    ours = SentencePieces(path, marks)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(icetk_model)
    for piece in proto.pieces:
        piece.type = CONTROL if piece.piece in marks else piece.type
    theirs = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    assert {"<n>", "▁the", "▁"} <= ours.controls.keys()
    assert len(ours.controls) == len(SentencePieces(path).controls) + 3
    assert ours.encode("the <n> fox") == theirs.encode("the <n> fox")
    assert [ours.piece(token) for token in range(5, ours.size)].count(b"") == 2


def test_piece_is_found_only_when_it_is_there(path):
    pieces = SentencePieces(path)
    assert pieces.find("<n>") == 4
    assert pieces.find("<unk>") == 0
    assert pieces.find("no such piece") is None


@pytest.mark.parametrize(
    "content", [b"not a model at all", b"\x0a\xff\xff", b"IQ== 0\nIg== 1\n", b""]
)
def test_error_names_the_file_when_it_is_no_model(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.model (is no SentencePiece model|holds no pieces)"):
        SentencePieces(path)


def test_error_names_the_file_when_it_is_cut_short(path, icetk_model):
    path.write_bytes(icetk_model[: len(icetk_model) // 2])
    with pytest.raises(ValueError, match=r"x\.model .*copy it again"):
        SentencePieces(path)


def test_error_names_the_file_when_it_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*y\.model \(No such file.*holds y\.model"):
        SentencePieces(tmp_path / "y.model")
