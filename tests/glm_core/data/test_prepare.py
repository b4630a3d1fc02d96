import json
import logging

import pytest

from glm_core.data import prepare as module
from glm_core.data.prepare import open_prepared, prepare_data, read_manifest
from glm_core.data.shards import ShardError
from glm_core.tokenizer import ByteBPETokenizer


def all_texts(prepared, shard):
    return [prepared.tokenizer.decode(shard.document(i)) for i in range(len(shard))]


@pytest.fixture
def fresh(make_config, tmp_path):
    return lambda **changes: make_config(cache_dir=str(tmp_path / "cache"), **changes)


def test_every_document_is_in_one_split_when_prepared(prepared, texts):
    train, heldout = all_texts(prepared, prepared.train), all_texts(prepared, prepared.heldout)
    assert sorted(train + heldout) == sorted(texts)
    assert len(heldout) >= 5
    assert not set(train) & set(heldout)


def test_documents_end_with_eos_when_tokenised(prepared):
    for shard in (prepared.train, prepared.heldout):
        for index in range(len(shard)):
            document = shard.document(index)
            assert document[-1] == prepared.tokenizer.eos_id
            assert (document[:-1] != prepared.tokenizer.eos_id).all()


def test_manifest_tells_what_was_read_when_prepared(prepared, texts):
    manifest = read_manifest(prepared.train.folder)
    splits = manifest["splits"]
    assert splits["train"]["documents"] + splits["heldout"]["documents"] == len(texts)
    total = sum(len(text.encode()) for text in texts)
    assert splits["train"]["bytes"] + splits["heldout"]["bytes"] == total
    assert splits["train"]["tokens"] == prepared.train.num_tokens
    assert len(splits["heldout"]["sha256"]) == 64
    assert manifest["tokenizer"] == prepared.tokenizer.fingerprint()


def test_tokenizer_knows_nothing_of_held_out_text_when_trained(prepared, make_config):
    train = [text for text in all_texts(prepared, prepared.train)]
    again = ByteBPETokenizer.train(train, make_config().vocab_size)
    assert again.fingerprint() == prepared.tokenizer.fingerprint()


def test_cache_is_used_when_nothing_changed(prepared, make_config, monkeypatch):
    monkeypatch.setattr(module, "_build", lambda *_: pytest.fail("built again"))
    again = prepare_data(make_config(seq_length=32, mask=1.0, seed=9))
    assert again.train.folder == prepared.train.folder


@pytest.mark.parametrize("change", [{"vocab_size": 350}, {"heldout_fraction": 0.3}])
def test_cache_is_not_used_when_contents_would_differ(prepared, make_config, change):
    assert prepare_data(make_config(**change)).train.folder != prepared.train.folder


def test_result_is_the_same_when_prepared_twice(prepared, fresh):
    again = prepare_data(fresh())
    assert again.train.meta == prepared.train.meta
    assert again.train.folder != prepared.train.folder


def test_prepared_folder_is_a_source_when_named(prepared, make_config):
    pinned = prepare_data(make_config(source=str(prepared.train.folder)))
    assert pinned.train.meta == prepared.train.meta


def test_another_tokenizer_is_refused_when_the_source_is_prepared(prepared, make_config, tmp_path):
    folder, same = str(prepared.train.folder), str(prepared.train.folder / "tokenizer")
    assert (
        prepare_data(make_config(source=folder, tokenizer=same)).train.meta == prepared.train.meta
    )
    ByteBPETokenizer.train(["other words " * 30], 300).save(tmp_path / "tok")
    with pytest.raises(ValueError, match="prepared with another tokenizer than data.tokenizer="):
        prepare_data(make_config(source=folder, tokenizer=str(tmp_path / "tok")))


def test_given_tokenizer_is_used_when_a_folder_is_named(fresh, tmp_path):
    own = ByteBPETokenizer.train(["other words " * 30], 300)
    own.save(tmp_path / "tok")
    prepared = prepare_data(fresh(tokenizer=str(tmp_path / "tok")))
    assert prepared.tokenizer.fingerprint() == own.fingerprint()


def test_nothing_temporary_is_left_when_done(fresh, tmp_path):
    prepared = prepare_data(fresh())
    assert sorted(path.name for path in prepared.train.folder.iterdir()) == [
        "heldout.json",
        "heldout.offsets",
        "heldout.tokens",
        "manifest.json",
        "tokenizer",
        "train.json",
        "train.offsets",
        "train.tokens",
    ]
    assert [p.name for p in (tmp_path / "cache" / "data").iterdir()] == [prepared.train.folder.name]


def test_cache_folder_comes_from_the_environment_when_unset(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_CACHE", str(tmp_path / "elsewhere"))
    folder = prepare_data(make_config(cache_dir="")).train.folder
    assert folder.is_relative_to(tmp_path / "elsewhere")


def test_warning_tells_both_sizes_when_the_corpus_is_too_small_for_the_vocabulary(fresh, caplog):
    with caplog.at_level(logging.WARNING, "glm_core"):
        prepared = prepare_data(fresh(vocab_size=60_000))
    assert f"for {prepared.tokenizer.vocab_size} ids only" in caplog.text
    assert "asked for 60000" in caplog.text


def test_work_of_another_process_is_used_when_it_was_first(fresh, monkeypatch, prepared):
    write = module._write

    def slow_write(config, source, folder):
        write(config, source, folder)
        monkeypatch.setattr(module, "_write", write)
        prepare_data(config)  # another process finishes in the meantime

    monkeypatch.setattr(module, "_write", slow_write)
    assert prepare_data(fresh()).train.meta == prepared.train.meta


def test_nothing_is_left_when_preparation_fails(fresh, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(module, "_tokenise", fail)
    with pytest.raises(RuntimeError, match="killed"):
        prepare_data(fresh())
    assert list((tmp_path / "cache" / "data").iterdir()) == []


def test_error_names_the_disk_when_it_is_full(fresh, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_tokenise", full)
    with pytest.raises(ValueError, match=r"cannot write .*No space left.*set data\.cache_dir"):
        prepare_data(fresh())
    assert list((tmp_path / "cache" / "data").iterdir()) == []


def test_error_names_the_setting_when_the_cache_cannot_be_written(make_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cache folder .* cannot be written .*data\.cache_dir"):
        prepare_data(make_config(cache_dir=str(tmp_path / "file")))


def test_error_names_the_source_when_the_corpus_is_empty(fresh, tmp_path):
    (tmp_path / "empty.txt").write_text("  \n")
    with pytest.raises(ValueError, match=r"data\.source=.*has no text"):
        prepare_data(fresh(source=str(tmp_path / "empty.txt")))


def test_error_names_the_tokenizer_when_it_is_unknown(fresh):
    with pytest.raises(ValueError, match="no tokenizer in nowhere"):
        prepare_data(fresh(tokenizer="nowhere"))


def test_error_names_the_shard_when_the_cache_is_truncated(fresh):
    config = fresh()
    path = prepare_data(config).train.folder / "train.tokens"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match=r"train\.tokens has .* bytes instead of"):
        prepare_data(config)


def test_error_names_the_folder_when_tokenizer_and_shard_differ(fresh):
    folder = prepare_data(fresh()).train.folder
    path = folder / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer": "other"}))
    with pytest.raises(ValueError, match="was made with another tokenizer"):
        open_prepared(folder)
