"""CodeGeeX2-6B and CodeGeeX4-9B: logits, what stands in front of a prompt, special tokens."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_core.attention import Causal, LeftPadded
from glm_core.checkpoint import load_model
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.released import open_checkpoint
from glm_core.infer.blanks import continuation_prompt
from glm_core.infer.kv_cache import KVCache
from glm_core.infer.layout import layout_for
from glm_core.model.presets import preset
from glm_core.testing import assert_relative
from glm_core.tokenizer import load_tokenizer

from . import chatglm2_oracle as oracle
from .released_folders import SENTINELS, write_codegeex2, write_codegeex4
from .rows_by_hand import in_bytes, levels_of

CONFIGS = {"codegeex2-6b": oracle.CODEGEEX2, "codegeex4-9b": oracle.CODEGEEX4}
TEXT = "# language: Python\n# write a bubble sort function\n"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Folder and weights by name, in the bf16 that they are released in."""
    root = tmp_path_factory.mktemp("released")
    return {
        "codegeex2-6b": (root / "two", write_codegeex2(root / "two")),
        "codegeex4-9b": (root / "four", write_codegeex4(root / "four")[0]),
    }


def ids_of(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 280, (length,), generator=generator).tolist()


@torch.no_grad()
def ours(model, ids, **options):
    return model.logits(model(torch.tensor([ids]), **options))[0]


@pytest.mark.parametrize("length", [1, 2, 9, 33, 90])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_the_transcription_when_in_fp32(released, name, length):
    folder, weights = released[name]
    model, _ = load_model(folder, dtype="float32")
    expected = oracle.logits(weights, CONFIGS[name], ids_of(length))
    # Worst measured 5.8e-7.
    assert_relative(ours(model, ids_of(length)), expected, 2e-6, f"{name} {length}")


@pytest.mark.parametrize("reference_numerics", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_near_the_transcription_when_in_bf16(released, name, reference_numerics):
    folder, weights = released[name]
    model, _ = load_model(folder, dtype="bfloat16", reference_numerics=reference_numerics)
    assert model.dtype == torch.bfloat16
    expected = oracle.logits(weights, CONFIGS[name], ids_of(33), torch.bfloat16)
    # Worst measured 1.2e-2.
    assert_relative(ours(model, ids_of(33)).float(), expected.float(), 4e-2, name)


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_and_padded_logits_are_the_same_when_lengths_are_odd(released, name):
    folder, weights = released[name]
    model, _ = load_model(folder, dtype="float32")
    ids = ids_of(23)
    cache = KVCache.for_model(model.config, 1, len(ids))
    parts = [ours(model, ids[a:b], kv_cache=cache) for a, b in pairwise((0, 7, 8, 9, 22, 23))]
    expected = oracle.logits(weights, CONFIGS[name], ids)
    assert_relative(torch.cat(parts), expected, 2e-6, f"{name} cached")
    rows = [ids_of(length, length) for length in (23, 1, 8)]
    batch = torch.zeros(3, 23, dtype=torch.long)
    positions = torch.zeros(3, 23, dtype=torch.long)
    for row, here in enumerate(rows):
        batch[row, 23 - len(here) :] = torch.tensor(here)
        positions[row, 23 - len(here) :] = torch.arange(len(here))
    with torch.no_grad():
        found = model.logits(model(batch, positions, LeftPadded(Causal(), (0, 22, 15))))
    for row, here in enumerate(rows):
        expected = oracle.logits(weights, CONFIGS[name], here)
        assert_relative(found[row, 23 - len(here) :], expected, 2e-6, f"{name} padded")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_rounded_weights_when_released_quantized(tmp_path, name, bits):
    """As CodeGeeX2-6B-int4 is: linear layers of the blocks as rows, their scales beside them."""
    weights = oracle.random_weights(CONFIGS[name], dtype=torch.float16)
    stored, rounded = dict(weights), {key: tensor.float() for key, tensor in weights.items()}
    for key, tensor in weights.items():
        if tensor.dim() == 2 and ".layers." in key:
            levels, scale = levels_of(tensor.numpy(), bits)
            stored[key] = torch.from_numpy(in_bytes(levels, bits))
            stored[f"{key}_scale"] = torch.from_numpy(scale)
            rounded[key] = torch.from_numpy(levels * scale[:, None].astype(np.float32))
    (write_codegeex2 if name == "codegeex2-6b" else write_codegeex4)(tmp_path)
    for file in tmp_path.glob("pytorch_model*"):
        file.unlink()
    torch.save(stored, tmp_path / "pytorch_model.bin")
    config = CONFIGS[name] | {"quantization_bit": bits}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = load_model(tmp_path, dtype="float32")
    assert model.layers[0].mlp.dense_4h_to_h.bits == bits
    # Worst measured 1.6e-4: the compiled products round their inputs to 15 bits.
    expected = oracle.logits(rounded, CONFIGS[name], ids_of(33))
    assert_relative(ours(model, ids_of(33)), expected, 6e-4, f"{name} int{bits}")


@pytest.mark.parametrize("name", CONFIGS)
def test_folder_comes_back_bit_for_bit_when_converted_there_and_back(released, name, tmp_path):
    folder, weights = released[name]
    convert(folder, tmp_path / "ours", "glm-lab")
    convert(tmp_path / "ours", tmp_path / "back", "chatglm2")
    checkpoint, again = open_checkpoint(folder), open_checkpoint(tmp_path / "back")
    assert checkpoint.config == again.config and again.format.name == "chatglm2"
    for parameter in checkpoint.names():
        one, other = checkpoint.read(parameter), again.read(parameter)
        assert one.dtype == other.dtype == torch.bfloat16 and torch.equal(one, other), parameter


@pytest.mark.parametrize("name", CONFIGS)
def test_prompt_begins_with_gmask_and_sop(released, name):
    tokenizer = load_tokenizer(released[name][0])
    layout = layout_for(preset(name))
    prompt = continuation_prompt(TEXT, tokenizer, layout)
    front = [tokenizer.token_id("[gMASK]"), tokenizer.token_id("<sop>")]
    assert list(prompt.context_ids) == [*front, *tokenizer.encode(TEXT)]
    assert not tokenizer.special_ids & set(tokenizer.encode(f"{TEXT}[gMASK]<sop></s><|user|>"))


def test_codegeex2_ends_and_pads_with_2(released):
    tokenizer = load_tokenizer(released["codegeex2-6b"][0])
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids) == (2, 2, (2,))
    assert preset("codegeex2-6b").max_position_embeddings == 8192


@pytest.mark.parametrize("first", [None, 300])
def test_codegeex4_sentinels_are_those_of_its_files(tmp_path, first):
    _, ids = write_codegeex4(tmp_path, first_sentinel=first)
    tokenizer = load_tokenizer(tmp_path)
    assert [tokenizer.token_id(name) for name in SENTINELS] == [ids[name] for name in SENTINELS]
    assert set(ids.values()) <= tokenizer.special_ids
    typed = "".join(SENTINELS)
    assert tokenizer.decode(tokenizer.encode(typed)) == typed
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode(typed))


def test_codegeex4_has_no_sentinels_when_its_files_name_none(tmp_path):
    write_codegeex4(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names = settings["added_tokens_decoder"]
    kept = {token: entry for token, entry in names.items() if "code_" not in entry["content"]}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(settings | {"added_tokens_decoder": kept})
    )
    assert not any(load_tokenizer(tmp_path).has(name) for name in SENTINELS)


def released_tokenizer(name):
    """A released vocabulary under GLM_TOKENIZERS; the test is skipped without it."""
    root = os.environ.get("GLM_TOKENIZERS")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"GLM_TOKENIZERS names no folder that holds {name}")
    return load_tokenizer(Path(root) / name)


def test_codegeex2_gives_the_known_ids_when_the_released_vocabulary_is_there():
    # Source: li-plus/chatglm.cpp, chatglm_test.cpp
    tokenizer = released_tokenizer("codegeex2-6b")
    known = [31010, 3239, 30954, 16719, 13, 31010, 3072, 260, 17338, 3482, 1674, 13]
    prompt = continuation_prompt(TEXT, tokenizer, layout_for(preset("codegeex2-6b")))
    assert list(prompt.context_ids) == [64790, 64792, *known]


def test_glm_45_sentinels_are_known_when_the_released_vocabulary_is_there():
    tokenizer = released_tokenizer("GLM-4.5")
    assert [tokenizer.token_id(name) for name in SENTINELS] == [151347, 151348, 151349]
