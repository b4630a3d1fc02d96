import json
import pickle

import numpy as np
import pytest

from glm_core.data.shards import Shard, ShardError, ShardWriter

DOCUMENTS = [[1, 2, 3], [4], [5, 6]]


def write(folder, documents=DOCUMENTS, vocab_size=100):
    writer = ShardWriter(folder, "train", vocab_size, "fingerprint")
    for document in documents:
        writer.add(document)
    return writer.close()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(100, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_documents_come_back_when_written(tmp_path, vocab_size, dtype):
    write(tmp_path, [[1, vocab_size - 1], [0]], vocab_size)
    shard = Shard(tmp_path, "train")
    assert [shard.document(i).tolist() for i in range(len(shard))] == [[1, vocab_size - 1], [0]]
    assert shard.meta.dtype == dtype
    assert shard.document(0).dtype == np.int64
    assert shard.num_tokens == 3


def test_stream_crosses_documents_when_sliced(tmp_path):
    write(tmp_path)
    assert Shard(tmp_path, "train").slice(1, 5).tolist() == [2, 3, 4, 5]


def test_empty_documents_are_left_out_when_written(tmp_path):
    write(tmp_path, [[], [7], []])
    assert len(Shard(tmp_path, "train")) == 1


def test_shard_is_readable_when_it_has_no_documents(tmp_path):
    write(tmp_path, [])
    assert Shard(tmp_path, "train").num_tokens == 0


def test_hashes_are_equal_when_contents_are(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    assert write(tmp_path / "a") == write(tmp_path / "b")


def test_shard_is_reopened_when_pickled(tmp_path):
    write(tmp_path)
    raw = pickle.dumps(Shard(tmp_path, "train"))
    assert len(raw) < 1000
    assert pickle.loads(raw).document(2).tolist() == [5, 6]  # noqa: S301


def test_error_names_the_ids_when_one_is_outside_the_vocabulary(tmp_path):
    with pytest.raises(ValueError, match=r"token ids 1\.\.100 do not fit vocab_size=100"):
        write(tmp_path, [[1, 100]])


def test_error_names_the_file_when_there_is_no_shard(tmp_path):
    with pytest.raises(ShardError, match=r"no shard at .*train\.json.*never finished"):
        Shard(tmp_path, "train")


def test_shard_does_not_exist_when_writing_was_interrupted(tmp_path):
    writer = ShardWriter(tmp_path, "train", 100, "x")
    writer.add([1, 2])
    with pytest.raises(ShardError, match="never finished"):
        Shard(tmp_path, "train")


@pytest.mark.parametrize("name", ["train.tokens", "train.offsets"])
def test_error_tells_both_sizes_when_a_file_is_truncated(tmp_path, name):
    write(tmp_path)
    path = tmp_path / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ShardError, match=f"{name} has {size - 2} bytes instead of {size}.*delete"):
        Shard(tmp_path, "train")


@pytest.mark.parametrize("name", ["train.tokens", "train.offsets"])
def test_error_names_the_file_when_a_byte_differs(tmp_path, name):
    write(tmp_path)
    raw = bytearray((tmp_path / name).read_bytes())
    raw[0] ^= 1
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ShardError, match=f"{name} is corrupt .*sha256 differs"):
        Shard(tmp_path, "train")


def test_large_shards_can_be_opened_unread_when_verify_is_off(tmp_path):
    write(tmp_path)
    raw = bytearray((tmp_path / "train.tokens").read_bytes())
    raw[0] ^= 1
    (tmp_path / "train.tokens").write_bytes(raw)
    assert Shard(tmp_path, "train", verify=False).num_tokens == 6


@pytest.mark.parametrize("name", ["train.tokens", "train.offsets"])
def test_error_names_the_file_when_it_is_missing(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ShardError, match=f"shard file .*{name} is missing"):
        Shard(tmp_path, "train")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "glm-shard"}'])
def test_error_names_the_description_when_it_is_unreadable(tmp_path, text):
    write(tmp_path)
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ShardError, match=r"train\.json is not a readable shard description"):
        Shard(tmp_path, "train")


def test_error_tells_both_versions_when_the_format_is_another(tmp_path):
    write(tmp_path)
    path = tmp_path / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    with pytest.raises(ShardError, match="version 9, this program reads glm-shard version 1"):
        Shard(tmp_path, "train")


def test_error_names_the_shard_when_its_files_cannot_be_opened(tmp_path, monkeypatch):
    write(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "fromfile", refuse)
    with pytest.raises(ShardError, match=r"shard train in .* cannot be read \(Permission denied\)"):
        Shard(tmp_path, "train")


def test_ids_are_the_same_when_they_come_as_an_array(tmp_path):
    writers = [ShardWriter(tmp_path, name, 70_000, "x") for name in ("list", "array")]
    writers[0].add([1, 69_999, 5])
    writers[1].add(np.array([1, 69_999, 5], dtype=np.uint32))
    first, second = (writer.close() for writer in writers)
    assert first == second
    with pytest.raises(ValueError, match=r"token ids 1\.\.70000 do not fit vocab_size=70000"):
        ShardWriter(tmp_path, "more", 70_000, "x").add(np.array([1, 70_000]))
