"""Folders that transformers wrote and reads: the same logits there and here."""

import json

import pytest
import torch

from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.released import open_checkpoint
from glm_core.model import Transformer
from glm_core.testing import assert_relative, tiny_model

from ..test_convert import same_bits, write_ours

transformers = pytest.importorskip("transformers")

VOCAB, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 71, 96, 72, 6, 2, 16, 3
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}

# Worst measured, fp32: 7.2e-7 (GLM-4-0414).
TOLERANCE = 2e-6

# Their class, our format, changes of their config.
CASES = {
    "glm": ("Glm", "glm4-hf", {}),
    "glm_tied": ("Glm", "glm4-hf", {"tie_word_embeddings": True}),
    "glm_without_bias": ("Glm", "glm4-hf", {"attention_bias": False}),
    "glm_linear": ("Glm", "glm4-hf", {"rope_parameters": LINEAR | {"partial_rotary_factor": 0.5}}),
    "glm4": ("Glm4", "glm4-0414-hf", {}),
    "llama": ("Llama", "llama", {}),
    "llama_tied": ("Llama", "llama", {"tie_word_embeddings": True}),
    "llama_biases": ("Llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_linear": ("Llama", "llama", {"rope_parameters": LINEAR}),
}


def their_model(name, changes):
    rope = {"rope_type": "default", "rope_theta": 3e4}
    if name != "Llama":
        rope["partial_rotary_factor"] = 0.5
    values = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
        "attention_bias": name != "Llama",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "initializer_range": 0.1,
        "attn_implementation": "eager",
    }
    config = getattr(transformers, f"{name}Config")(**values | changes)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for parameter in model.parameters():  # biases and norms matter too
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 0.7, 0.2)
    return model


def our_logits(folder, ids):
    checkpoint = open_checkpoint(folder)
    model = Transformer(checkpoint.config).eval()
    state = {name: checkpoint.read(name, torch.float32) for name in checkpoint.names()}
    model.load_state_dict(state)
    with torch.no_grad():
        return model.logits(model(ids))


def their_logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def load_theirs(folder):
    """Loads with nothing missing and nothing left over."""
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", local_files_only=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not told[kind], (kind, told[kind])
    return model.eval()


@pytest.mark.parametrize("shard", ["5GB", "60KB"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_theirs_when_transformers_wrote_the_folder(tmp_path, case, shard):
    name, format, changes = CASES[case]
    theirs = their_model(name, changes)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").is_file() == (shard != "5GB")
    assert open_checkpoint(tmp_path).format.name == format
    ids = torch.randint(1, VOCAB, (3, 17))
    assert_relative(our_logits(tmp_path, ids), their_logits(theirs, ids), TOLERANCE, case)


@pytest.mark.parametrize("limit", [5 * 10**9, 60_000])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_ours_when_transformers_reads_the_folder(tmp_path, case, limit):
    """There and back: what transformers wrote, through our format, into its own again."""
    name, format, changes = CASES[case]
    theirs = their_model(name, changes)
    theirs.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", "glm-lab")
    convert(tmp_path / "ours", tmp_path / "back", format, max_shard_bytes=limit)
    again = load_theirs(tmp_path / "back")
    assert type(again) is type(theirs)
    for key, value in theirs.state_dict().items():
        assert same_bits(value, again.state_dict()[key]), key
    ids = torch.randint(1, VOCAB, (3, 17))
    assert_relative(our_logits(tmp_path / "ours", ids), their_logits(again, ids), TOLERANCE, case)
    for entry in (
        "eos_token_id",
        "bos_token_id",
        "pad_token_id",
        "rms_norm_eps",
        "rope_parameters",
    ):
        assert getattr(again.config, entry) == getattr(theirs.config, entry), entry


FAMILIES = {
    "chatglm2-6b": "glm4-hf",
    "chatglm2-6b-32k": "glm4-hf",
    "glm-4-9b": "glm4-hf",
    "glm-4-9b-0414": "glm4-0414-hf",
    "llama-7b": "llama",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_released_members_run_in_transformers_when_converted(tmp_path, family, dtype):
    """From the original layout where there is one."""
    write_ours(tmp_path / "ours", tiny_model(family, vocab_size=VOCAB), dtype)
    source = tmp_path / "ours"
    if FAMILIES[family] == "glm4-hf":
        source = tmp_path / "original"
        convert(tmp_path / "ours", source, "chatglm2")
    convert(source, tmp_path / "hf", FAMILIES[family])
    theirs = load_theirs(tmp_path / "hf")
    assert theirs.dtype == dtype
    ids = torch.randint(1, VOCAB, (2, 23))
    expected = their_logits(theirs.float(), ids)
    assert_relative(our_logits(source, ids), expected, TOLERANCE, family)


def test_config_that_transformers_4_wrote_is_read(tmp_path):
    theirs = their_model("Glm", {})
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor")}
    path.write_text(json.dumps(config))
    ids = torch.randint(1, VOCAB, (2, 9))
    assert_relative(our_logits(tmp_path, ids), their_logits(theirs, ids), TOLERANCE, "version 4")
