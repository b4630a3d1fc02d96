"""Which tokens stand around a prompt, as each member's own code puts them there."""

import pytest

from glm_core.infer.layout import BlankSlot, layout_for
from glm_core.model import TransformerConfig
from glm_core.model.presets import PRESETS, preset


class NamedTokens:
    """A tokenizer of special tokens alone: the id of a name is its place in the list."""

    def __init__(self, *names):
        self.names = list(names)

    def has(self, name):
        return name in self.names

    def token_id(self, name):
        if name not in self.names:
            raise ValueError(f"no special token {name!r}")
        return self.names.index(name)

    cls_id = property(lambda self: self.token_id("[CLS]"))
    eos_id = property(lambda self: self.token_id("<|endoftext|>"))
    sop_id = property(lambda self: self.token_id("<|startofpiece|>"))


MARKS = ("<|endoftext|>", "[MASK]", "[sMASK]", "[gMASK]", "<|startofpiece|>", "<|endofpiece|>")
GLM, NO_CLS, LLAMA = NamedTokens(*MARKS, "[CLS]"), NamedTokens(*MARKS), NamedTokens("<s>", "</s>")
CODEGEEX = NamedTokens("<|endoftext|>")
TEXT = [50, 51]


def framed(config, tokenizer, *ending):
    """The frame around a text that ends with the named tokens; text itself is `...`."""
    ids = layout_for(config).frame([*TEXT, *map(tokenizer.token_id, ending)], tokenizer)
    names = ["..." if token == 51 else tokenizer.names[token] for token in ids if token != 50]
    return " ".join(names)


# Preset, tokenizer; the context of a plain text, then with each blank at its end.
BLANK_MEMBERS = {
    "glm-10b": (GLM, "[CLS] ... <|endoftext|>", "[CLS] ... {}", "[CLS] ... [gMASK]"),
    "glm-large-zh": (GLM, "[CLS] ... <|endoftext|>", "[CLS] ... {}", "[CLS] ... [gMASK]"),
    "glm-130b": (NO_CLS, "... <|endoftext|>", "... {}", "... [gMASK]"),
    "chatglm-6b": (NO_CLS, "...", "... {}", "... [gMASK]"),
}


@pytest.mark.parametrize("name", BLANK_MEMBERS)
def test_context_is_that_of_the_original_when_it_has_blanks(name):
    tokenizer, plain, blank, gmask = BLANK_MEMBERS[name]
    config = preset(name)
    assert framed(config, tokenizer) == plain
    assert framed(config, tokenizer, "[MASK]") == blank.format("[MASK]")
    assert framed(config, tokenizer, "[sMASK]") == blank.format("[sMASK]")
    assert framed(config, tokenizer, "[gMASK]") == gmask
    layout = layout_for(config)
    assert layout.has_blanks
    assert layout.opening(tokenizer) == [tokenizer.sop_id]
    assert layout.prefix_len(7) == 7


@pytest.mark.parametrize(
    ("name", "tokenizer", "context"),
    [
        ("chatglm2-6b", NO_CLS, "[gMASK] <|startofpiece|> ..."),
        ("chatglm3-6b-32k", NO_CLS, "[gMASK] <|startofpiece|> ..."),
        ("codegeex2-6b", NO_CLS, "[gMASK] <|startofpiece|> ..."),
        ("glm-4-9b-chat-1m", NO_CLS, "[gMASK] <|startofpiece|> ..."),
        ("glm-4-9b-0414", NO_CLS, "[gMASK] <|startofpiece|> ..."),
        ("llama-7b", LLAMA, "<s> ..."),
        ("vicuna-7b-v1.5", LLAMA, "<s> ..."),
        ("codegeex-13b", CODEGEEX, "..."),
    ],
)
def test_context_is_that_of_the_original_when_it_is_causal(name, tokenizer, context):
    layout = layout_for(preset(name))
    assert framed(preset(name), tokenizer) == context
    assert not layout.has_blanks
    assert layout.opening(tokenizer) == []
    assert layout.prefix_len(7) == 0


def test_every_preset_names_its_frame():
    frames = {name: preset(name).prompt_frame.value for name in PRESETS}
    assert "cls_eos" not in frames.values()
    assert [name for name, frame in frames.items() if frame == "bare"] == [
        "chatglm-6b",
        "chatglm-6b-v0",
        "codegeex-13b",
    ]


def old_config(**values):
    """What config.json held before there were frames."""
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    return TransformerConfig.from_dict({**sizes, "max_position_embeddings": 16, **values})


def test_old_configs_keep_their_context():
    assert framed(old_config(), GLM) == "[CLS] ... <|endoftext|>"
    assert framed(old_config(), GLM, "[MASK]") == "[CLS] ... [MASK] <|endoftext|>"
    assert framed(old_config(), GLM, "[gMASK]") == "[CLS] ... [gMASK]"
    assert framed(old_config(generation_layout="blank_1d"), GLM) == "[CLS] ... <|endoftext|>"
    assert framed(old_config(generation_layout="causal"), GLM) == "..."


def test_missing_token_is_named_when_the_tokenizer_is_another_models():
    with pytest.raises(ValueError, match=r"no special token '\[CLS\]'"):
        framed(preset("glm-10b"), NO_CLS)
    with pytest.raises(ValueError, match="no special token '<s>'"):
        framed(preset("llama-7b"), CODEGEEX)


@pytest.mark.parametrize(
    ("name", "marker", "positions"),
    [
        # Context of 7 columns, blank in column 3: the inputs sop, first and second token.
        ("glm-10b", "[gMASK]", [(3, 1), (3, 2), (3, 3)]),
        ("glm-10b", "[MASK]", [(3, 1), (3, 2), (3, 3)]),
        ("glm-130b", "[gMASK]", [(7, 1), (8, 2), (9, 3)]),
        ("glm-130b", "[sMASK]", [(3, 1), (3, 2), (3, 3)]),
        ("chatglm-6b", "[gMASK]", [(3, 1), (3, 2), (3, 3)]),
        ("chatglm-6b", "[MASK]", [(3, 1), (3, 2), (3, 3)]),
        ("chatglm2-6b", "", [(7, 0), (8, 0), (9, 0)]),
        ("codegeex-13b", "", [(7, 0), (8, 0), (9, 0)]),
    ],
)
def test_positions_of_the_answer_are_those_of_the_original(name, marker, positions):
    layout, slot = layout_for(preset(name)), BlankSlot(marker, 3 if marker else -1)
    assert [layout.position(7, slot, step) for step in range(3)] == positions
