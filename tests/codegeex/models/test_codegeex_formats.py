"""Every layout in which CodeGeeX-13B is passed on: read, written, split and merged."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.released import open_checkpoint
from glm_core.model import Transformer

from . import released_layouts as layouts
from .codegeex_oracle import logits
from .conftest import HEADS

RANKS = (2, 4, 8)
TEXT = [5, 130, 0, 77, 77, 12, 9]
WRITERS = {
    "codegeex-13b": layouts.save_file,
    "codegeex-13b-fused": lambda folder, state: layouts.save_file(folder, layouts.fused(state)),
    "codegeex-13b-paddle": lambda folder, state: layouts.save_file(folder, layouts.columns(state)),
    "codegeex-13b-mindspore": layouts.save_mindspore,
}
RING = [*WRITERS, "codegeex-13b"]
PAIRS = [*pairwise(RING), *pairwise(reversed(RING))]


def with_heads(folder):
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    return folder


@pytest.fixture(scope="module")
def written(state, tmp_path_factory):
    """The model in each layout, written by hand."""
    root = tmp_path_factory.mktemp("layouts")
    for format, write in WRITERS.items():
        write(root / format, state)
        with_heads(root / format)
    for ranks in RANKS:
        layouts.save_shards(root / f"tp{ranks}", state, ranks)
        with_heads(root / f"tp{ranks}")
    return root


def contents(folder):
    """Every tensor under its name, of every file."""
    files = sorted(folder.glob("*.safetensors"))
    return {(file.name, name): t for file in files for name, t in load_file(file).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: tensor
        for key, child in value.items()
        for name, tensor in flat(child, f"{prefix}.{key}" if prefix else key).items()
    }


def logits_of(folder):
    checkpoint = open_checkpoint(folder)
    model = Transformer(checkpoint.config).eval()
    model.load_state_dict({name: checkpoint.read(name) for name in checkpoint.names()})
    with torch.no_grad():
        return checkpoint.format.name, model.logits(model(torch.tensor([TEXT])))[0]


@pytest.mark.parametrize("name", [*WRITERS, *(f"tp{ranks}" for ranks in RANKS)])
def test_logits_are_the_transcriptions_when_read_from_any_layout(written, state, name):
    format, found = logits_of(written / name)
    assert format == ("codegeex-13b" if name.startswith("tp") else name)
    assert torch.allclose(found, logits(state, TEXT, HEADS), atol=2e-5)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_conversion_gives_the_layout_written_by_hand(written, tmp_path, one, other):
    convert(written / one, tmp_path / "there", other)
    convert(written / other, tmp_path / "same", other)
    assert_same(contents(tmp_path / "there"), contents(tmp_path / "same"))
    convert(tmp_path / "there", tmp_path / "back", "glm-lab")
    convert(written / one, tmp_path / "ours", "glm-lab")
    assert_same(contents(tmp_path / "back"), contents(tmp_path / "ours"))


def test_names_and_numbers_are_the_original_scripts_when_written(written, state, tmp_path):
    whole = "mp_rank_00_model_states.safetensors"
    expected = {
        "codegeex-13b": (whole, flat({"module": state})),
        "codegeex-13b-fused": (whole, flat({"module": layouts.fused(state)})),
        "codegeex-13b-paddle": ("model.safetensors", flat({"module": layouts.columns(state)})),
        "codegeex-13b-mindspore": (
            "model.safetensors",
            {name: torch.from_numpy(array) for name, array in layouts.mindspore(state).items()},
        ),
    }
    for format, (file, tensors) in expected.items():
        convert(written / "codegeex-13b", tmp_path / format, format)
        assert_same(load_file(tmp_path / format / file), tensors)


@pytest.mark.parametrize("ranks", RANKS)
def test_shards_are_the_original_scripts_when_split(written, state, tmp_path, ranks):
    """The top-query table is shared by positions; a bias behind a sum over ranks is everybody's."""
    convert(written / "codegeex-13b", tmp_path / "split", "codegeex-13b", ranks=ranks)
    for rank, content in enumerate(layouts.shards(state, ranks)):
        file = tmp_path / "split" / f"mp_rank_{rank:02d}_model_states.safetensors"
        assert_same(load_file(file), flat(content))
    name = "module.language_model.topQueryEmbedding.top_query_embeddings.weight"
    assert flat(layouts.shards(state, ranks)[0])[name].shape == (48 // ranks, 64)


@pytest.mark.parametrize("format", ["codegeex-13b", "codegeex-13b-fused"])
@pytest.mark.parametrize("ranks", RANKS)
def test_merge_undoes_a_split_bit_for_bit(written, tmp_path, format, ranks):
    convert(written / "codegeex-13b", tmp_path / "whole", format)
    convert(tmp_path / "whole", tmp_path / "split", format, ranks=ranks)
    convert(tmp_path / "split", tmp_path / "merged", format)
    assert_same(contents(tmp_path / "merged"), contents(tmp_path / "whole"))
    assert len(contents(tmp_path / "split")) == ranks * len(contents(tmp_path / "whole"))


@pytest.mark.parametrize("ranks", RANKS)
def test_fused_shards_hold_parts_of_the_same_heads(written, state, tmp_path, ranks):
    """Cutting the fused matrix into equal pieces would give a rank queries without their keys."""
    convert(written / "codegeex-13b", tmp_path / "split", "codegeex-13b-fused", ranks=ranks)
    stem = "module.language_model.transformer"
    weights = state["language_model"]["transformer"]
    blocks = {"layers.1": ("query", "key", "value"), "topQueryLayer": ("key", "value")}
    for rank in range(ranks):
        stored = load_file(tmp_path / "split" / f"mp_rank_{rank:02d}_model_states.safetensors")
        for block, joined in blocks.items():
            parts = [weights[f"{block}.attention.{part}.weight"] for part in joined]
            expected = torch.cat([part.chunk(ranks)[rank] for part in parts])
            found = stored[f"{stem}.{block}.attention.{'_'.join(joined)}.weight"]
            assert torch.equal(found, expected)


def test_heads_are_of_128_numbers_when_no_config_says(written, state, tmp_path):
    layouts.save_file(tmp_path / "bare", state)
    assert open_checkpoint(tmp_path / "bare").config.num_heads == 1
    assert open_checkpoint(written / "codegeex-13b").config.num_heads == HEADS


def test_training_state_beside_the_weights_is_left_out_when_read(state, tmp_path):
    (tmp_path / "run").mkdir()
    content = {"module": state, "iteration": 213000, "optimizer": None, "lr": [1e-4]}
    torch.save(content, tmp_path / "run" / "mp_rank_00_model_states.pt")
    assert open_checkpoint(tmp_path / "run").config.num_layers == 3


def test_pickle_with_code_in_it_is_not_opened(state, tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("read",)

    (tmp_path / "run").mkdir()
    torch.save({"module": state, "args": Trap()}, tmp_path / "run" / "codegeex_13b.pt")
    with pytest.raises(ValueError, match=r"holds more than weights \(.*print\).*It is not read"):
        open_checkpoint(tmp_path / "run")


def test_pickle_is_the_originals_when_written_as_the_guide_shows(written, state, tmp_path):
    guide = Path(__file__).parents[3] / "docs" / "guides" / "codegeex_models.md"
    (snippet,) = re.findall(r"^```python\n(.*?)^```", guide.read_text(), flags=re.M | re.S)
    scope = {}
    exec(snippet, scope)
    convert(written / "codegeex-13b", tmp_path / "there", "codegeex-13b")
    file = tmp_path / "there" / "mp_rank_00_model_states.safetensors"
    scope["write_pickle"](file, tmp_path / "codegeex_13b.pt")
    found = torch.load(tmp_path / "codegeex_13b.pt", weights_only=True)
    assert found.keys() == {"module"} and found["module"].keys() == state.keys()
    assert found["module"]["language_model"].keys() == state["language_model"].keys()
    assert_same(flat(found["module"]), flat(state))
    transformer = found["module"]["language_model"]["transformer"]
    assert transformer.keys() == state["language_model"]["transformer"].keys()


def _missing(folder, array):
    (folder / f"{array}.npy").unlink()


def _cut(folder, array):
    file = folder / f"{array}.npy"
    file.write_bytes(file.read_bytes()[:5000])


def _reshaped(folder, array):
    np.save(folder / f"{array}.npy", np.zeros((64, 200), np.float32))


def _another(folder, array):
    np.save(folder / "backbone.more.npy", np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing, r"lacks the tensor backbone\.blocks\.1\.output\.mapping\.weight: copy or"),
        (_cut, r"blocks\.1\.output\.mapping\.weight\.npy is damaged or no \.npy file"),
        (_reshaped, r"mapping\.weight with shape \[64, 200\]: .* ask for \[64, 256\]"),
        (_another, r"has the tensor backbone\.more, which is no part of a codegeex-13b-mindspore"),
    ],
)
def test_error_names_the_array_when_the_export_is_damaged(state, tmp_path, damage, message):
    layouts.save_mindspore(tmp_path / "npy", state)
    damage(tmp_path / "npy", "backbone.blocks.1.output.mapping.weight")
    with pytest.raises(ValueError, match=message):
        open_checkpoint(with_heads(tmp_path / "npy"))
