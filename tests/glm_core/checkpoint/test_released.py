"""What is wrong with a checkpoint is told before the first weight is read, and nothing is written.

That the weights come out right is shown in formats/test_released_layouts.py and test_convert.py.
"""

import json

import numpy as np
import pytest
import torch

from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.released import open_checkpoint
from glm_core.testing import tiny_model

from . import released_files as files
from .formats.test_released_layouts import CHATGLM2_CONFIG, CHATGLM_CONFIG, GLM_CONFIG

LAYERS = 2
QKV = "transformer.encoder.layers.1.self_attention.query_key_value.weight"
DENSE = "transformer.encoder.layers.0.self_attention.dense.weight"
QKV_130B = "transformer.layers.1.attention.query_key_value.weight"
MLP_130B = "transformer.layers.0.mlp.dense_4h_to_h.weight"
CONFIG_130B = {"num_attention_heads": 4, "max_sequence_length": 48}


def chatglm2_state():
    model = tiny_model("chatglm2-6b", vocab_size=64, num_layers=LAYERS)
    return files.as_tensors(files.chatglm2(files.arrays_of(model), LAYERS))


def glm_130b_states(ranks):
    model = tiny_model("glm-130b", vocab_size=64, num_layers=LAYERS)
    w = files.arrays_of(model)
    return [files.as_tensors(files.glm_130b(w, LAYERS, rank, ranks)) for rank in range(ranks)]


def write_chatglm2(folder, state, config=CHATGLM2_CONFIG):
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))


def write_130b(folder, states):
    folder.mkdir(exist_ok=True)
    for rank, state in enumerate(states):
        torch.save({"module": state}, folder / f"mp_rank_{rank:02d}_model_states.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG_130B))


def refuse(folder, match, **how):
    """Opening says what is wrong in one line that names the folder; converting leaves nothing."""
    before = sorted(path.name for path in folder.parent.iterdir())
    with pytest.raises(CheckpointError, match=match) as caught:
        open_checkpoint(folder, **how)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    how = {"source_format": how.get("format")}
    with pytest.raises(CheckpointError, match=match):
        convert(folder, folder.parent / "target", "glm-lab", **how)
    assert sorted(path.name for path in folder.parent.iterdir()) == before


def as_rows(state, name, bits=8):
    """Stores a matrix as quantized rows, scales of 1."""
    rows, columns = state[name].shape
    state[name] = torch.ones(rows, columns * bits // 8, dtype=torch.int8)
    state[name + "_scale"] = torch.ones(rows, dtype=torch.float16)


def drop(name):
    return lambda state: state.pop(name)


def put(name, value):
    return lambda state: state.update({name: value})


def change(name, function):
    return lambda state: state.update({name: function(state[name])})


def rows_with_scale(scale):
    def fault(state):
        as_rows(state, DENSE)
        state[DENSE + "_scale"] = scale

    return fault


FAULTS = {
    "missing": (drop(QKV), rf"lacks the tensor {QKV}: copy or download it again"),
    "missing_head": (
        drop("transformer.output_layer.weight"),
        r"lacks the tensor transformer\.output_layer\.weight",
    ),
    "extra": (
        put("transformer.encoder.layers.2.mlp.gate.weight", torch.ones(2)),
        r"has the tensor transformer\.encoder\.layers\.2\.mlp\.gate\.weight, which is no part of "
        r"a chatglm2 model with 2 layers",
    ),
    "extra_layer": (
        put(QKV.replace(".1.", ".2."), torch.ones(2)),
        r"layers\.2\.self_attention\.query_key_value\.weight, which is no part of",
    ),
    "extra_outside": (put("optimizer.step", torch.ones(2)), "has the tensor optimizer.step"),
    "scale_of_nothing": (
        put(DENSE + "_scale", torch.ones(32, dtype=torch.float16)),
        r"has the tensor .*dense\.weight_scale, which is no part",
    ),
    "shape": (
        change(QKV, lambda tensor: tensor[:-1]),
        r"stores .*query_key_value\.weight with shape \[63, 32\]: .* ask for \[64, 32\]",
    ),
    "transposed": (
        change("transformer.encoder.layers.0.mlp.dense_4h_to_h.weight", lambda tensor: tensor.T),
        r"dense_4h_to_h\.weight with shape \[44, 32\]: .* ask for \[32, 44\]",
    ),
    "flat": (change(DENSE, torch.flatten), r"with shape \[1024\]: .* ask for \[32, 32\]"),
    "int64": (
        change(DENSE, torch.Tensor.long),
        r"dense\.weight as int64: weights must be float16, bfloat16, float32 or float64, or int8",
    ),
    "int8_alone": (
        change(DENSE, torch.Tensor.char),
        r"dense\.weight as int8: .* or int8 with .*dense\.weight_scale beside them",
    ),
    "int8_vector": (
        lambda state: state.update(
            {
                "transformer.encoder.final_layernorm.weight": torch.ones(32, dtype=torch.int8),
                "transformer.encoder.final_layernorm.weight_scale": torch.ones(32).half(),
            }
        ),
        r"final_layernorm\.weight as int8",
    ),
    "scale_shape": (
        rows_with_scale(torch.ones(31, dtype=torch.float16)),
        r"weight_scale as float16 \[31\]: it must be float16 \[32\], one scale per row",
    ),
    "scale_matrix": (
        rows_with_scale(torch.ones(32, 1, dtype=torch.float16)),
        r"weight_scale as float16 \[32, 1\]: it must be float16 \[32\]",
    ),
    "scale_dtype": (
        rows_with_scale(torch.ones(32, dtype=torch.int32)),
        r"weight_scale as int32 \[32\]: it must be float16",
    ),
    "rows_of_3_bits": (
        lambda state: (
            as_rows(state, DENSE),
            state.update({DENSE: torch.ones(32, 12, dtype=torch.int8)}),
        ),
        r"dense\.weight with shape \[32, 12\]: .* ask for \[32, 32\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_error_names_the_tensor_when_a_file_has_a_fault(tmp_path, fault):
    spoil, match = FAULTS[fault]
    state = chatglm2_state()
    spoil(state)
    write_chatglm2(tmp_path / "source", state)
    refuse(tmp_path / "source", match)


def test_checkpoint_opens_when_it_has_no_fault(tmp_path):
    """Otherwise every fault above might be another one."""
    write_chatglm2(tmp_path / "a", chatglm2_state())
    write_130b(tmp_path / "b", glm_130b_states(4))
    assert open_checkpoint(tmp_path / "a").format.name == "chatglm2"
    assert open_checkpoint(tmp_path / "b").num_ranks == 4


RANK_FAULTS = {
    "missing": (
        lambda states: states[2].pop(QKV_130B),
        rf"\(rank 2\) lacks the tensor module\.{QKV_130B}",
    ),
    "extra": (
        lambda states: states[3].update({"transformer.layers.7.mlp.x": torch.ones(1)}),
        r"has the tensor module\.transformer\.layers\.7\.mlp\.x \(rank 3\), which is no part",
    ),
    "shape": (
        lambda states: states[1].update({MLP_130B: torch.ones(32, 12)}),
        r"\(rank 1\) stores .*4h_to_h\.weight with shape \[32, 12\]: .* ask for \[32, 11\]",
    ),
    "dtype": (
        lambda states: states[1].update({MLP_130B: states[1][MLP_130B].half()}),
        r"stores the parts of layers\.0\.mlp\.dense_4h_to_h\.weight as float16 and float32: they "
        "must be of one kind",
    ),
    "some_quantized": (
        lambda states: as_rows(states[3], MLP_130B),
        "as float32 and int8 rows: they must be of one kind",
    ),
    "last_rank": (lambda states: states.pop(), r"from 3 ranks \(is a file missing\?\), ask for"),
    "last_ranks": (lambda states: states.__delitem__(slice(1, 4)), "from 1 ranks .*, ask for"),
}


@pytest.mark.parametrize("fault", RANK_FAULTS)
def test_error_names_the_rank_when_one_has_a_fault(tmp_path, fault):
    spoil, match = RANK_FAULTS[fault]
    states = glm_130b_states(4)
    spoil(states)
    write_130b(tmp_path / "source", states)
    refuse(tmp_path / "source", match)


def test_error_names_the_rank_when_one_in_the_middle_is_missing(tmp_path):
    write_130b(tmp_path / "source", glm_130b_states(4))
    (tmp_path / "source/mp_rank_02_model_states.pt").unlink()
    refuse(tmp_path / "source", "lacks mp_rank_02_model_states: it has ranks")


CONFIGS = {
    "no_config": ({}, r"there is no config\.json, which would tell 'num_attention_heads'"),
    "lacks": ({"num_layers": None}, r"config\.json lacks 'num_layers'"),
    "text": ({"hidden_size": "32"}, "has hidden_size='32': it must be of type int"),
    "bool": ({"num_layers": True}, "has num_layers=True: it must be of type int"),
    "float": ({"num_layers": 2.0}, "has num_layers=2.0: it must be of type int"),
    "no_heads": ({"num_attention_heads": 0, "kv_channels": None}, "does not describe a model"),
    "heads": ({"multi_query_group_num": 3}, "does not describe a model .*num_kv_heads is 3"),
    "nan": ({"layernorm_epsilon": float("nan")}, "does not describe a model .*norm_eps"),
    "norm": ({"rmsnorm": False}, "rmsnorm=False, which no released model of this format has"),
    "layers": ({"num_layers": 3}, r"lacks the tensor .*encoder\.layers\.2\."),
    "fewer_layers": ({"num_layers": 1}, r"has the tensor .*layers\.1\..*, which is no part"),
    "width": ({"ffn_hidden_size": 40}, r"shape \[88, 32\]: .* ask for \[80, 32\]"),
    "ours": ({"glm_lab": {"hidden_size": 3}}, "has glm_lab=.*: it may set only hidden_dropout"),
    "our_list": ({"glm_lab": [1]}, r"has glm_lab=\[1\]: it may set only"),
    "our_value": ({"glm_lab": {"prompt_frame": "x"}}, "does not describe a model .*prompt_frame"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_error_names_the_entry_when_config_json_has_a_fault(tmp_path, name):
    changes, match = CONFIGS[name]
    write_chatglm2(tmp_path / "source", chatglm2_state(), changes and CHATGLM2_CONFIG | changes)
    if not changes:
        (tmp_path / "source/config.json").unlink()
    refuse(tmp_path / "source", match)


@pytest.mark.parametrize(
    ("config", "build", "entry", "value"),
    [
        (GLM_CONFIG, files.glm_hf, "relative_encoding", True),
        (GLM_CONFIG, files.glm_hf, "block_position_encoding", False),
        (CHATGLM_CONFIG, files.chatglm, "position_encoding_2d", False),
    ],
)
def test_error_when_config_json_asks_for_what_is_not_computed(
    tmp_path, config, build, entry, value
):
    family = "glm-10b" if build is files.glm_hf else "chatglm-6b"
    state = build(files.arrays_of(tiny_model(family, vocab_size=64, num_layers=LAYERS)), LAYERS)
    files.save_bin(tmp_path / "source", state, config | {entry: value})
    refuse(tmp_path / "source", f"has {entry}={value}, which no released model of this format has")


def test_error_when_rope_is_scaled_in_an_unknown_way(tmp_path):
    from glm_core.checkpoint.formats.llama import rope_of

    for rope in ({"rope_type": "yarn", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}):
        with pytest.raises(CheckpointError, match="only 'default' and 'linear' are supported"):
            rope_of({"rope_scaling": rope})


def test_error_lists_the_formats_when_none_matches(tmp_path):
    write_chatglm2(tmp_path / "source", {"bert.encoder.weight": torch.ones(2)})
    refuse(tmp_path / "source", r"is in no known format .*bert\.encoder.*--from, one of glm-lab, ")


def test_error_names_the_flag_when_there_is_a_prefix_alone(tmp_path):
    prefix = {"transformer.prefix_encoder.embedding.weight": torch.ones(2, 4)}
    write_chatglm2(tmp_path / "source", prefix)
    refuse(tmp_path / "source", "holds a prefix encoder alone: load the model .* with --prefix")


def test_error_when_the_format_named_is_another(tmp_path):
    write_chatglm2(tmp_path / "source", chatglm2_state())
    refuse(tmp_path / "source", "lacks 'vocab_size'", format="chatglm")
    refuse(tmp_path / "source", "the tensor module.* is missing", format="glm-130b")


def test_error_when_config_json_of_ours_is_newer(tmp_path):
    config = {"format": "glm-core", "version": 2}
    write_chatglm2(tmp_path / "source", {"a": torch.ones(1)}, config)
    refuse(tmp_path / "source", "has version 2: this program reads version 1; use the program")


def quantize_by_hand(weight, bits):
    """Source: THUDM/GLM-130B quantization/layers.py and cuda/quantization.cu."""
    top = 2 ** (bits - 1) - 1
    scale = (np.abs(weight).max(axis=1) / top).astype(np.float16)
    levels = np.round(weight / scale[:, None].astype(np.float32)).astype(np.int8)
    if bits == 4:
        even, odd = levels[:, 0::2].astype(np.uint8), levels[:, 1::2].astype(np.uint8)
        stored = ((even & 15) << 4 | odd & 15).view(np.int8)
    else:
        stored = levels
    return stored, scale, (levels.astype(np.float32) * scale[:, None].astype(np.float32))


LINEARS = ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("embeddings", [False, True])
def test_values_are_exact_when_rows_were_quantized_by_hand(tmp_path, bits, embeddings):
    """As chatglm-6b-int4 has them; as chatglm-6b-int4-qe with the embedding and the head."""
    model = tiny_model("chatglm-6b", vocab_size=64, num_layers=LAYERS, ffn_hidden_size=128)
    w, expected = files.arrays_of(model), {}
    state = files.as_tensors(files.chatglm(w, LAYERS))
    for name in list(state):
        is_table = name in ("transformer.word_embeddings.weight", "lm_head.weight")
        if not name.endswith(LINEARS) and not (embeddings and is_table):
            continue
        levels, scale, value = quantize_by_hand(state[name].numpy(), bits)
        state[name] = torch.from_numpy(levels)
        state[name + "_scale"] = torch.from_numpy(scale)
        expected[name] = torch.from_numpy(value)
    config = CHATGLM_CONFIG | {"quantization_bit": bits, "quantization_embeddings": embeddings}
    write_chatglm2(tmp_path / "source", state, config)
    checkpoint = open_checkpoint(tmp_path / "source")
    assert checkpoint.bits == bits and checkpoint.config.tie_embeddings
    for theirs, value in expected.items():
        ours = theirs.removeprefix("transformer.")
        if theirs != "lm_head.weight":
            assert torch.equal(checkpoint.read(ours, torch.float32), value), ours
    convert(tmp_path / "source", tmp_path / "ours", "glm-lab")
    convert(tmp_path / "ours", tmp_path / "back", "chatglm")
    back = open_checkpoint(tmp_path / "back")
    for name, tensor in back.files.tensors.items():
        if "inv_freq" not in name:
            assert torch.equal(tensor.read(), state[name]), name
    assert state.keys() == back.files.tensors.keys()


@pytest.mark.parametrize("bits", [8, 4])
def test_values_are_exact_when_each_rank_was_quantized_by_hand(tmp_path, bits):
    model = tiny_model("glm-130b", vocab_size=64, num_layers=LAYERS, ffn_hidden_size=48)
    w, shares = files.arrays_of(model), []
    for rank in range(4):
        state = files.as_tensors(files.glm_130b(w, LAYERS, rank, 4))
        for name in [name for name in state if name.endswith(LINEARS)]:
            levels, scale, value = quantize_by_hand(state[name].numpy(), bits)
            state[name] = torch.from_numpy(levels)
            state[name + "_scale"] = torch.from_numpy(scale)
            if name == MLP_130B:
                shares.append(value)
        torch.save({"module": state}, tmp_path / f"mp_rank_{rank:02d}_model_states.pt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_130B))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format.name == "glm-130b" and checkpoint.bits == bits
    read = checkpoint.read("layers.0.mlp.dense_4h_to_h.weight", torch.float32)
    assert torch.equal(read, torch.from_numpy(np.concatenate(shares, axis=1)))


def test_rows_are_read_as_they_are_when_scales_are_wider_but_exact(tmp_path):
    """A model that was quantized and then moved to the CPU with .float() has fp32 scales."""
    state = chatglm2_state()
    as_rows(state, DENSE)
    state[DENSE + "_scale"] = torch.full((32,), 0.25)
    write_chatglm2(tmp_path / "a", state)
    scale = open_checkpoint(tmp_path / "a").read_scale("layers.0.attention.dense.weight")
    assert torch.equal(scale, torch.full((32,), 0.25, dtype=torch.float16))
    state[DENSE + "_scale"] = torch.full((32,), 0.1)
    write_chatglm2(tmp_path / "a", state)
    with pytest.raises(CheckpointError, match="has scales of .* that fp16 cannot hold"):
        open_checkpoint(tmp_path / "a").read_matrix("layers.0.attention.dense.weight")


def test_error_when_shares_of_ranks_are_no_groups(tmp_path):
    states = glm_130b_states(2)
    for state in states:
        matrix = state["transformer.layers.0.attention.dense.weight"]
        as_rows(state, "transformer.layers.0.attention.dense.weight")
        scale = matrix.abs().amax(1).half()
        state["transformer.layers.0.attention.dense.weight_scale"] = scale
    write_130b(tmp_path / "a", states)
    message = (
        r"layers.0.attention.dense.weight was quantized after 2 ranks had shared its columns, so "
        r"each row has several scales, one for 16 columns, which 32 does not divide: read it as "
        r"numbers \(--quantize none\)"
    )
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "a").read_matrix("layers.0.attention.dense.weight")
