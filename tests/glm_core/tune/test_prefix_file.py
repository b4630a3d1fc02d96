"""Prefix checkpoints: names, formats, and what does not fit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from glm_core.checkpoint import CheckpointError, load_model, save_pretrained
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.pretrained import EMBEDDED
from glm_core.testing import randomize, tiny_model
from glm_core.tokenizer import load_tokenizer
from glm_core.tune.prefix import PrefixEncoder, prefix_width
from glm_core.tune.prefix_file import load_prefix, save_prefix

PROJECTIONS = {
    "table": lambda config: {},
    "chatglm": lambda config: {"projection": True, "projection_hidden_size": 24},
    "chatglm2": lambda config: {
        "projection": True,
        "projection_input_size": prefix_width(config),
    },
}


def released(config, projection="table", before="transformer.prefix_encoder."):
    """Tensors of a prefix checkpoint, under the originals' names."""
    encoder = PrefixEncoder(config, 6, **PROJECTIONS[projection](config))
    randomize(encoder, seed=2)
    return {before + name: value.clone() for name, value in encoder.state_dict().items()}


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("before", ["transformer.prefix_encoder.", "prefix_encoder.", ""])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("family", ["chatglm-6b", "chatglm2-6b"])
def test_prefix_is_read_as_saved_by_the_originals(tmp_path, family, projection, before, suffix):
    model = tiny_model(family)
    tensors = released(model.config, projection, before)
    path = tmp_path / f"prefix{suffix}"
    (torch.save if suffix == ".bin" else save_file)(tensors, path)
    encoder = load_prefix(model, path)
    assert model.prefix is encoder and encoder.prefix_len == 6 and not encoder.training
    assert {before + name for name in encoder.state_dict()} == tensors.keys()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, tensors[before + name]), name
    assert model(torch.randint(0, 67, (2, 5))).isfinite().all()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_prefix_is_found_in_a_folder_among_other_tensors(tmp_path, name):
    model = tiny_model("chatglm2-6b")
    tensors = released(model.config, "chatglm2") | {
        "transformer.output_layer.weight": torch.ones(2)
    }
    (torch.save if name.endswith(".bin") else save_file)(tensors, tmp_path / name)
    assert load_prefix(model, tmp_path).trans is not None


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_saved_prefix_comes_back_bit_for_bit(tmp_path, projection):
    model, other = tiny_model("chatglm2-6b"), tiny_model("chatglm2-6b")
    model.prefix = PrefixEncoder(model.config, 4, **PROJECTIONS[projection](model.config)).half()
    randomize(model.prefix, seed=1)
    path = tmp_path / "new" / "prefix.safetensors"
    save_prefix(model, path)
    save_prefix(model, path)
    assert [file.name for file in path.parent.iterdir()] == ["prefix.safetensors"]
    assert all(name.startswith("transformer.prefix_encoder.") for name in load_file(path))
    loaded = load_prefix(other, path)
    for name, value in model.prefix.state_dict().items():
        assert value.dtype == torch.float16
        assert torch.equal(loaded.state_dict()[name], value), name


def test_saving_without_a_prefix_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no prefix to save: set model.prefix, or call load"):
        save_prefix(tiny_model("glm-base"), tmp_path / "prefix.safetensors")
    assert not list(tmp_path.iterdir())


def test_prefix_of_another_model_is_refused(tmp_path):
    model = tiny_model("chatglm2-6b")
    save_file(released(tiny_model("chatglm-6b").config), tmp_path / "prefix.safetensors")
    message = (
        r"prefix.safetensors does not fit the model: embedding.weight \(prefix columns x width\) "
        r"has shape \[6, 128\], the model needs \[6, 64\]; a prefix column has 64 numbers here "
        r"\(2 blocks x 2 x 2 heads x 8\): use the model it was tuned for"
    )
    with pytest.raises(CheckpointError, match=message):
        load_prefix(model, tmp_path / "prefix.safetensors")
    assert model.prefix is None


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("trans.2.weight", (64, 31), r"trans.2.weight \(width x middle\) has shape \[64, 31\]"),
        ("trans.2.bias", (63,), r"trans.2.bias \(width\) has shape \[63\], the model needs \[64\]"),
        ("trans.0.bias", (31,), r"trans.0.weight \(middle x table\) has shape \[32, 64\], the m"),
        ("embedding.weight", (6,), r"embedding.weight \(prefix columns x width\) has shape \[6\]"),
    ],
)
def test_tensors_of_other_shapes_are_refused(tmp_path, name, shape, message):
    model = tiny_model("chatglm2-6b")
    tensors = released(model.config, "chatglm2", "")
    save_file(tensors | {name: torch.zeros(shape)}, tmp_path / "prefix.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_prefix(model, tmp_path / "prefix.safetensors")


class Code:
    def __reduce__(self):
        return (print, ("ran",))


def broken_files(folder):
    """Files that are no prefix checkpoint, by name."""
    config = tiny_model("chatglm2-6b").config
    half = released(config, "chatglm2")
    half.pop("transformer.prefix_encoder.trans.2.bias")
    save_file(half, folder / "half.safetensors")
    save_file({"transformer.word_embeddings.weight": torch.ones(3)}, folder / "other.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "half.safetensors").read_bytes()[:-9])
    torch.save({"embedding.weight": Code()}, folder / "code.bin")
    torch.save([torch.ones(2)], folder / "list.bin")
    (folder / "empty.bin").touch()
    (folder / "folder").mkdir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.bin", r"missing.bin does not exist"),
        ("missing.safetensors", r"missing.safetensors does not exist"),
        ("half.safetensors", r"half.safetensors lacks transformer.prefix_encoder.trans.2.bias of"),
        ("other.safetensors", r"holds no transformer.prefix_encoder.embedding.weight; give a pref"),
        ("cut.safetensors", r"cut.safetensors is truncated"),
        ("code.bin", r"code.bin holds more than weights \(print\), and reading"),
        (
            "list.bin",
            r"list.bin holds no transformer.prefix_encoder.embedding.weight; give a prefix",
        ),
        ("empty.bin", r"empty.bin is truncated or no file of weights"),
        ("folder", r"no weights in .*folder: expected model.safetensors or"),
    ],
)
def test_file_that_is_no_prefix_checkpoint_is_refused(tmp_path, capsys, name, message):
    broken_files(tmp_path)
    model = tiny_model("chatglm2-6b")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_prefix(model, tmp_path / name)
    assert model.prefix is None
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def whole_checkpoint(folder, model, tensors):
    """ChatGLM2's layout with a prefix encoder among the weights."""
    save_pretrained(model, load_tokenizer(EMBEDDED["nano-text"]), folder / "plain")
    convert(folder / "plain", folder / "whole", "chatglm2")
    weights = load_file(folder / "whole" / "model.safetensors")
    save_file(weights | tensors, folder / "whole" / "model.safetensors")
    return folder / "whole"


def test_prefix_is_applied_when_it_lies_among_the_weights_or_is_named(tmp_path, caplog):
    model = tiny_model("chatglm2-6b", vocab_size=10300)
    tensors = released(model.config, "chatglm2")
    save_file(tensors, tmp_path / "prefix.safetensors")
    folder = whole_checkpoint(tmp_path, model, tensors)
    load_prefix(model, tmp_path / "prefix.safetensors")
    ids = torch.arange(9)[None] + 300
    with torch.no_grad():
        expected = model(ids)
        inside = load_model(folder, dtype="float32")[0](ids)
        named = load_model(tmp_path / "plain", dtype="float32", prefix=folder)[0](ids)
        without = load_model(tmp_path / "plain", dtype="float32")[0](ids)
    assert torch.equal(inside, expected) and torch.equal(named, expected)
    assert not torch.allclose(without, expected, atol=1e-3)
    convert(folder, tmp_path / "again", "glm-lab")
    assert f"does not go along: use it with --prefix {folder}" in caplog.text


def test_fault_of_the_prefix_is_told_before_the_weights_are_read(tmp_path, monkeypatch):
    folder = whole_checkpoint(tmp_path, tiny_model("chatglm2-6b", vocab_size=10300), {})
    monkeypatch.setattr("glm_core.checkpoint.loading.WeightReader", None)
    with pytest.raises(CheckpointError, match="absent does not exist"):
        load_model(folder, prefix=tmp_path / "absent")


def test_model_with_a_prefix_is_not_saved_without_it(tmp_path):
    model = tiny_model("chatglm2-6b", vocab_size=10300)
    save_file(released(model.config, "chatglm2"), tmp_path / "prefix.safetensors")
    load_prefix(model, tmp_path / "prefix.safetensors")
    with pytest.raises(ValueError, match="has a prefix encoder.*call save_prefix"):
        save_pretrained(model, load_tokenizer(EMBEDDED["nano-text"]), tmp_path / "model")
    assert not (tmp_path / "model").exists()
