import json

import pytest

from glm_core.tokenizer import ByteBPETokenizer, load_tokenizer


@pytest.fixture
def folder(tmp_path):
    ByteBPETokenizer.train(["some text " * 20], 300).save(tmp_path)
    return tmp_path


def test_saved_tokenizer_comes_back_when_loaded(folder):
    assert load_tokenizer(folder).decode(load_tokenizer(folder).encode("text")) == "text"


def test_error_names_the_folder_when_there_is_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer in .*tokenizer_config\.json is missing"):
        load_tokenizer(tmp_path / "nowhere")


def test_error_names_the_file_when_config_is_no_json(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        load_tokenizer(folder)


@pytest.mark.parametrize("config", [{"kind": "wordpiece"}, {}, []])
def test_error_names_the_kind_when_it_is_unknown(folder, config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"names tokenizer kind .*known kinds are byte_bpe"):
        load_tokenizer(folder)


def test_error_tells_both_sizes_when_files_do_not_belong_together(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 999}))
    with pytest.raises(ValueError, match="promises 999 ids but"):
        load_tokenizer(folder)
