import json
from importlib import import_module

import pytest

from glm_core.tokenizer import ByteBPETokenizer, load_tokenizer
from glm_core.tokenizer.loading import KINDS


@pytest.fixture
def folder(tmp_path):
    ByteBPETokenizer.train(["some text " * 20], 300).save(tmp_path)
    return tmp_path


def test_saved_tokenizer_comes_back_when_loaded(folder):
    assert load_tokenizer(folder).decode(load_tokenizer(folder).encode("text")) == "text"


def test_error_names_the_folder_when_there_is_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer in .*nowhere: there is no such folder"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"it holds none of tokenizer\.model, ice_text\.model"):
        load_tokenizer(tmp_path)


def test_error_names_the_file_when_config_is_damaged(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json must be a JSON object"):
        load_tokenizer(folder)


def test_error_lists_the_kinds_when_it_is_unknown(folder):
    (folder / "tokenizer_config.json").write_text('{"kind": "wordbits"}')
    with pytest.raises(ValueError, match=r"names tokenizer kind 'wordbits': known .*byte_bpe, "):
        load_tokenizer(folder)
    with pytest.raises(ValueError, match=r"kind='letters' is unknown: known kinds are byte_bpe, "):
        load_tokenizer(folder, "letters")


def test_kind_that_is_said_wins_when_the_folder_names_another(folder):
    (folder / "tokenizer_config.json").write_text('{"kind": "gpt2", "vocab_size": 999}')
    assert load_tokenizer(folder, "byte_bpe").kind == "byte_bpe"


def test_error_tells_both_sizes_when_files_do_not_belong_together(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 999}))
    with pytest.raises(ValueError, match="promises 999 ids but"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_its_class_when_looked_up(kind):
    module, _, name = KINDS[kind].partition(":")
    cls = getattr(import_module(module), name)
    assert cls.kind == kind
    assert callable(cls.load)
