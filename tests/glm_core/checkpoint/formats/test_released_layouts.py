"""Every format against files written by hand: all parameters come out bitwise, logits as they are.

GLM-4 and LLaMA in the layout of transformers are in test_transformers.py.
"""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_core.attention import PrefixLM
from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import WeightFolder
from glm_core.checkpoint.formats import format_named
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.keymap import Computed, Entry, expand
from glm_core.checkpoint.released import open_checkpoint
from glm_core.model import Transformer
from glm_core.model.presets import preset
from glm_core.testing import assert_relative, tiny_model

from ...model.numpy_oracles import (
    chatglm2_logits,
    chatglm_6b_logits,
    codegeex_logits,
    glm_130b_logits,
    glm_logits,
)
from .. import released_files as files

LAYERS = 2
ALPHA = math.sqrt(56)
"""Of ChatGLM-6B, whatever the number of layers."""

GLM_CONFIG = {
    "model_type": "glm",
    "attention_scale": 1.0,
    "block_position_encoding": True,
    "hidden_size": 32,
    "max_sequence_length": 48,
    "num_attention_heads": 4,
    "num_layers": LAYERS,
    "relative_encoding": False,
    "vocab_size": 64,
}
CHATGLM_CONFIG = {
    "_name_or_path": "THUDM/chatglm-6b",
    "architectures": ["ChatGLMModel"],
    "bos_token_id": 130004,
    "eos_token_id": 130005,
    "gmask_token_id": 130001,
    "mask_token_id": 130000,
    "pad_token_id": 3,
    "hidden_size": 32,
    "inner_hidden_size": 128,
    "layernorm_epsilon": 1e-05,
    "max_sequence_length": 48,
    "model_type": "chatglm",
    "num_attention_heads": 4,
    "num_layers": LAYERS,
    "position_encoding_2d": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 64,
}
CHATGLM2_CONFIG = {
    "_name_or_path": "THUDM/chatglm3-6b",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "ffn_hidden_size": 44,
    "fp32_residual_connection": False,
    "hidden_dropout": 0.0,
    "hidden_size": 32,
    "kv_channels": 8,
    "layernorm_epsilon": 1e-05,
    "model_type": "chatglm",
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": LAYERS,
    "original_rope": True,
    "padded_vocab_size": 64,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 48,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


def model_of(family, **changes):
    changes = {
        "vocab_size": 64,
        "num_layers": LAYERS,
        "init_std": preset(family).init_std,
    } | changes
    return tiny_model(family, **changes)


def glm_as_trained(ranks):
    # heads of 64 dims, which is all that tells their number
    model = model_of("glm-10b", num_heads=8, head_dim=64, hidden_size=512, ffn_hidden_size=2048)
    w = files.arrays_of(model)
    return model, [files.glm(w, LAYERS, rank, ranks) for rank in range(ranks)]


def glm_130b(ranks):
    model = model_of(
        "glm-130b",
        num_heads=8,
        head_dim=128,
        hidden_size=1024,
        ffn_hidden_size=96,
        rotary_dim=128,
        max_position_embeddings=2048,
    )
    w = files.arrays_of(model)
    return model, [files.glm_130b(w, LAYERS, rank, ranks) for rank in range(ranks)]


def codegeex_13b(ranks):
    model = model_of(
        "codegeex-13b", num_heads=8, head_dim=128, hidden_size=1024, ffn_hidden_size=96
    )
    w = files.arrays_of(model)
    return model, [files.codegeex_13b(w, LAYERS, rank, ranks) for rank in range(ranks)]


TENSOR_PARALLEL = {
    "glm": glm_as_trained,
    "glm-130b": glm_130b,
    "codegeex-13b": codegeex_13b,
}


def assert_holds(checkpoint, model):
    """Config, names, shapes and every bit are those of the model."""
    assert checkpoint.config == model.config
    expected = model.state_dict()
    assert sorted(checkpoint.names()) == sorted(expected)
    for name, tensor in expected.items():
        assert checkpoint.info(name).shape == tuple(tensor.shape), name
        read = checkpoint.read(name)
        assert read.dtype == tensor.dtype and torch.equal(read, tensor), name


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("format", TENSOR_PARALLEL)
def test_parameters_come_out_bitwise_when_ranks_share_them(tmp_path, format, ranks):
    model, states = TENSOR_PARALLEL[format](ranks)
    files.save_ranks(tmp_path, states)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == format
    assert_holds(checkpoint, model)


def test_weights_are_found_when_latest_names_their_folder(tmp_path):
    model, states = glm_130b(8)
    files.save_ranks(tmp_path / "49300", states)
    (tmp_path / "latest").write_text("49300\n")
    assert_holds(open_checkpoint(tmp_path), model)


def test_single_file_is_read_when_it_is_given_itself(tmp_path):
    model, states = codegeex_13b(1)
    torch.save({"module": files.as_tensors(states[0])}, tmp_path / "codegeex_13b.pt")
    checkpoint = open_checkpoint(tmp_path / "codegeex_13b.pt")
    assert checkpoint.format.name == "codegeex-13b"
    assert_holds(checkpoint, model)


def test_glm_hf_is_read_when_the_head_is_stored_too(tmp_path):
    model = model_of("glm-10b", ffn_hidden_size=128)
    state = files.glm_hf(files.arrays_of(model), LAYERS)
    assert "glm.lm_head.weight" in state
    files.save_bin(tmp_path, state, GLM_CONFIG, files=3)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == "glm-hf"
    assert_holds(checkpoint, model)


@pytest.mark.parametrize("tied", [True, False])
def test_chatglm_head_is_kept_when_it_is_not_the_embedding(tmp_path, tied):
    model = model_of("chatglm-6b", ffn_hidden_size=128, residual_scale=ALPHA, tie_embeddings=tied)
    files.save_bin(tmp_path, files.chatglm(files.arrays_of(model), LAYERS), CHATGLM_CONFIG, files=2)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == "chatglm"
    assert ("output_layer.weight" in checkpoint.names()) != tied
    assert_holds(checkpoint, model)


CHATGLM2_MEMBERS = {
    "chatglm2-6b": ("THUDM/chatglm2-6b", {}, {}),
    "chatglm2-6b-32k": ("THUDM/chatglm2-6b-32k", {"rope_ratio": 4}, {}),
    "chatglm3-6b-32k": ("THUDM/chatglm3-6b-32k", {"rope_ratio": 50}, {"rope_theta": 500000.0}),
    "glm-4-9b-chat": ("", {"rope_ratio": 500, "layernorm_epsilon": 1.5625e-07}, {}),
}


@pytest.mark.parametrize("member", CHATGLM2_MEMBERS)
def test_chatglm2_layout_is_read_when_rope_ratio_means_base_or_positions(tmp_path, member):
    name, changes, fields = CHATGLM2_MEMBERS[member]
    model = model_of(member, **fields)
    config = CHATGLM2_CONFIG | {"_name_or_path": name} | changes
    files.save_bin(tmp_path, files.chatglm2(files.arrays_of(model), LAYERS), config)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == "chatglm2"
    assert_holds(checkpoint, model)


def test_positions_are_divided_when_only_the_code_beside_says_so(tmp_path):
    model = model_of("chatglm2-6b-32k")
    config = CHATGLM2_CONFIG | {"_name_or_path": "/data/mine", "rope_ratio": 4}
    files.save_bin(tmp_path, files.chatglm2(files.arrays_of(model), LAYERS), config)
    code = "seq_idx = torch.arange(seq_len, dtype=dtype, device=device) / self.rope_ratio\n"
    (tmp_path / "modeling_chatglm.py").write_text(code)
    assert_holds(open_checkpoint(tmp_path), model)


def test_chatglm2_head_may_have_two_names(tmp_path):
    """As models have it that were fine-tuned with the first code of ChatGLM2-6B."""
    model = model_of("chatglm3-6b")
    state = files.as_tensors(files.chatglm2(files.arrays_of(model), LAYERS))
    state["lm_head.weight"] = state["transformer.output_layer.weight"]
    (tmp_path / "config.json").write_text(json.dumps(CHATGLM2_CONFIG))
    torch.save(state, tmp_path / "pytorch_model.bin")  # on one storage
    assert_holds(open_checkpoint(tmp_path), model)
    state["lm_head.weight"] = state["lm_head.weight"].clone()
    torch.save(state, tmp_path / "pytorch_model.bin")  # a copy
    assert_holds(open_checkpoint(tmp_path), model)
    state["lm_head.weight"][3, 4] += 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is not .*: delete the one"):
        open_checkpoint(tmp_path)


def test_names_and_bytes_are_those_of_the_released_index():
    """THUDM/chatglm2-6b: pytorch_model.bin.index.json has 200 names and this total_size."""
    config, format = preset("chatglm2-6b"), format_named("chatglm2")
    shapes, sizes = parameter_shapes(config), {}
    for row in expand(format.table(config), config.num_layers, format.prefix):
        if isinstance(row, Entry):
            sizes[row.theirs] = 2 * torch.Size(shapes[row.ours]).numel()
        elif isinstance(row, Computed):
            sizes[row.theirs] = row.value(config, torch.float16).nbytes
    assert len(sizes) == 200
    assert sum(sizes.values()) == 12_487_168_064


def logits_of(checkpoint, ids, positions, mask):
    model = Transformer(checkpoint.config).eval()
    model.load_state_dict({name: checkpoint.read(name) for name in checkpoint.names()})
    with torch.no_grad():
        return model.logits(model(torch.from_numpy(ids), torch.from_numpy(positions), mask))


# Worst measured, fp32: 3.3e-7.
TOLERANCE = 2e-6


def chatglm_folder(folder):
    model = model_of("chatglm-6b", ffn_hidden_size=128, residual_scale=ALPHA)
    files.save_bin(folder, files.chatglm(files.arrays_of(model), LAYERS), CHATGLM_CONFIG)
    return model


def chatglm2_folder(folder):
    model = model_of("chatglm2-6b-32k")
    config = CHATGLM2_CONFIG | {"_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 4}
    files.save_bin(folder, files.chatglm2(files.arrays_of(model), LAYERS), config)
    return model


def ranks_folder(build):
    def write(folder):
        model, states = build(2)
        files.save_ranks(folder, states)
        return model

    return write


# Who writes the folder, the oracle, columns of the prefix.
ORACLES = {
    "glm": (ranks_folder(glm_as_trained), glm_logits, 5),
    "glm-130b": (ranks_folder(glm_130b), glm_130b_logits, 5),
    "chatglm": (chatglm_folder, chatglm_6b_logits, 5),
    "chatglm2": (chatglm2_folder, partial(chatglm2_logits, position_scale=4.0), 0),
    "codegeex-13b": (ranks_folder(codegeex_13b), codegeex_logits, 0),
}


@pytest.mark.parametrize("format", ORACLES)
def test_logits_are_the_oracles_when_read_from_released_files(tmp_path, format):
    write, oracle, prefix = ORACLES[format]
    model = write(tmp_path)
    rng, columns = np.random.default_rng(3), np.arange(9)
    ids = rng.integers(0, 64, (2, 9))
    places = [np.minimum(columns, prefix or 9), np.maximum(columns - (prefix or 9) + 1, 0)]
    positions = np.stack(places)[None].repeat(2, 0)
    visible = (columns[None] <= columns[:, None]) | (columns[None] < prefix)
    w = {name: array.astype(np.float64) for name, array in files.arrays_of(model).items()}
    visible = np.broadcast_to(visible, (2, 9, 9))
    expected = oracle(w, ids, positions, visible, LAYERS, model.config.num_heads)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == format
    actual = logits_of(checkpoint, ids, positions, PrefixLM((prefix,) * 2))
    assert_relative(actual, torch.from_numpy(expected), TOLERANCE, f"{format} logits")


RELEASED_CONFIGS = {
    "glm-10b": GLM_CONFIG
    | {
        "hidden_size": 4096,
        "max_sequence_length": 1024,
        "num_attention_heads": 64,
        "num_layers": 48,
        "vocab_size": 50304,
    },
    "chatglm-6b": CHATGLM_CONFIG
    | {
        "hidden_size": 4096,
        "inner_hidden_size": 16384,
        "max_sequence_length": 2048,
        "num_attention_heads": 32,
        "num_layers": 28,
        "vocab_size": 130528,
    },
    "chatglm3-6b": CHATGLM2_CONFIG
    | {
        "ffn_hidden_size": 13696,
        "hidden_size": 4096,
        "kv_channels": 128,
        "num_attention_heads": 32,
        "num_layers": 28,
        "padded_vocab_size": 65024,
        "seq_length": 32768,
    },
}
RELEASED_CONFIGS["chatglm2-6b-32k"] = RELEASED_CONFIGS["chatglm3-6b"] | {
    "_name_or_path": "THUDM/chatglm2-6b-32k",
    "rope_ratio": 4,
    "seq_length": 32768,
}
RELEASED_CONFIGS["chatglm3-6b-32k"] = RELEASED_CONFIGS["chatglm3-6b"] | {
    "_name_or_path": "THUDM/chatglm3-6b-32k",
    "rope_ratio": 50,
    "seq_length": 32768,
}
RELEASED_CONFIGS["glm-4-9b-chat-1m"] = RELEASED_CONFIGS["chatglm3-6b"] | {
    "_name_or_path": "THUDM/glm-4-9b-chat-1m",
    "layernorm_epsilon": 1.5625e-07,
    "multi_query_group_num": 4,
    "num_layers": 40,
    "padded_vocab_size": 151552,
    "rope_ratio": 10000,
    "seq_length": 1048576,
}


@pytest.mark.parametrize("name", RELEASED_CONFIGS)
def test_config_is_the_preset_when_config_json_is_the_released_one(name):
    kind = {"glm-10b": "glm-hf", "chatglm-6b": "chatglm"}.get(name, "chatglm2")
    folder = WeightFolder(Path("released"), ({},), False, RELEASED_CONFIGS[name])
    assert format_named(kind).config_of(folder) == preset(name)
