"""Which tokenizer a folder is taken for, by the files that the released folders have."""

from __future__ import annotations

import json

import pytest

from glm_core.tokenizer.detection import detect_kind

CHATGLM = {"model_type": "chatglm"}
LLAMA = {"model_type": "llama"}
CLASS = {"tokenizer_class": "ChatGLMTokenizer"}
PLAIN_CODE = 'special_tokens = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]'
ROLE_CODE = PLAIN_CODE + ' + ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]'
ROLES = {**CLASS, "added_tokens_decoder": {"64795": {"content": "<|user|>"}}}


def named(origin):
    return {**CHATGLM, "_name_or_path": origin}


@pytest.fixture
def make(tmp_path, icetk_model, bpe_model):
    """Writes files into a folder; "icetk" and "bpe" stand for model files."""
    models = {"icetk": icetk_model, "bpe": bpe_model}

    def write(files):
        for name, content in files.items():
            if isinstance(content, dict):
                content = json.dumps(content)
            (tmp_path / name).write_bytes(models.get(content, content.encode()))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"ice_text.model": "icetk"}, "icetk"),
        ({"ice_text.model": "icetk", "config.json": CHATGLM}, "chatglm"),
        ({"ice_text.model": "icetk", "tokenizer_config.json": CLASS}, "chatglm"),
        ({"ice_text.model": "icetk", "tokenization_chatglm.py": ""}, "chatglm"),
        ({"cog-pretrain.model": "", "config.json": {"model_type": "glm"}}, "chinese_sp"),
        ({"tokenizer.model": "IQ== 0\nIg== 1\n", "config.json": CHATGLM}, "glm4"),
        ({"tokenizer.model": "bpe", "config.json": LLAMA}, "llama"),
        ({"tokenizer.model": "bpe", "params.json": {"dim": 4096}}, "llama"),
        ({"tokenizer.model": "bpe", "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}},
         "llama"),
        ({"tokenizer.model": "bpe", "tokenization_chatglm.py": PLAIN_CODE}, "chatglm2"),
        ({"tokenizer.model": "bpe", "tokenization_chatglm.py": ROLE_CODE}, "chatglm3"),
        ({"tokenizer.model": "bpe", "tokenizer_config.json": ROLES}, "chatglm3"),
        ({"tokenizer.model": "bpe", "config.json": named("zai-org/chatglm2-6b")}, "chatglm2"),
        ({"tokenizer.model": "bpe", "config.json": named("THUDM/codegeex2-6b")}, "chatglm2"),
        ({"tokenizer.model": "bpe", "config.json": named("/disk/ChatGLM3-6B-32k")}, "chatglm3"),
        ({"tokenizer.model": "bpe", "config.json": named("/tuned/mine"),
          "tokenizer_config.json": {**CLASS, "name_or_path": "THUDM/chatglm3-6b-base"}},
         "chatglm3"),
        ({"tokenizer.model": "bpe", "config.json": named("/tuned/mine"),
          "tokenizer_config.json": {**CLASS, "name_or_path": "THUDM/chatglm2-6b"}}, "chatglm2"),
        ({"vocab.txt": "[PAD]\n"}, "wordpiece"),
        ({"vocab.json": "{}", "merges.txt": "", "tokenizer.json": "{}"}, "gpt2"),
        ({"vocab.json": "{}", "merges.txt": "", "added_tokens.json": {"<|extratoken_1|>": 50257}},
         "codegeex"),
        ({"tokenizer.json": '{"added_tokens": ["[gMASK]", "<|observation|>"]}'}, "glm4"),
        ({"tokenizer.model": "bpe", "tokenizer_config.json": {"kind": "llama"}}, "llama"),
    ],
)  # fmt: skip
def test_kind_is_told_when_the_files_speak(make, files, kind):
    assert detect_kind(make(files)) == kind


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.model": "bpe", "config.json": CHATGLM},
         r"cannot tell ChatGLM2 from ChatGLM3 .* say kind=chatglm2 .* \(--tokenizer-kind\)"),
        ({"tokenizer.model": "bpe"}, "cannot tell whose tokenizer.model .* say kind=chatglm2"),
        ({"tokenizer.json": "{}"}, "is not GLM-4's: say kind=byte_bpe"),
        ({"vocab.json": "{}"}, "no tokenizer in .*: it holds none of"),
        ({"vocab.json": "{}", "merges.txt": "", "added_tokens.json": "{"}, "is not valid JSON"),
    ],
)  # fmt: skip
def test_error_says_what_to_do_when_the_files_do_not_tell(make, files, message):
    with pytest.raises(ValueError, match=message):
        detect_kind(make(files))
