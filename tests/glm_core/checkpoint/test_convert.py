"""Conversions there and back: every format, every number of files, bit for bit."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from glm_core.checkpoint.conversion import LINEARS, Conversion, _imagined
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.files import write_json, write_safetensors
from glm_core.checkpoint.formats import FORMATS, format_named
from glm_core.checkpoint.formats.glm_lab import parameter_shapes
from glm_core.checkpoint.inspection import TensorInfo
from glm_core.checkpoint.released import open_checkpoint
from glm_core.checkpoint.writer import _fill_shards, size_of
from glm_core.model.presets import preset
from glm_core.quantize.rows import dequantize_rows, quantize_rows
from glm_core.testing import tiny_model

# The formats that can hold a member of each family, beside our own.
HOLDS = {
    "glm-base": ("glm", "glm-hf"),
    "glm-130b": ("glm-130b",),
    "chatglm-6b": ("chatglm",),
    "chatglm2-6b": ("chatglm2", "glm4-hf"),
    "chatglm2-6b-32k": ("chatglm2", "glm4-hf"),
    "glm-4-9b": ("chatglm2", "glm4-hf"),
    "glm-4-9b-0414": ("glm4-0414-hf",),
    "llama-7b": ("llama",),
    "codegeex-13b": (
        "codegeex-13b",
        "codegeex-13b-fused",
        "codegeex-13b-mindspore",
        "codegeex-13b-paddle",
    ),
}
TENSOR_PARALLEL = {
    "glm": "glm-base",
    "glm-130b": "glm-130b",
    "codegeex-13b": "codegeex-13b",
    "codegeex-13b-fused": "codegeex-13b",
}
PAIRS = [(family, format) for family, formats in HOLDS.items() for format in formats]
COLUMNS = ("codegeex-13b-mindspore", "codegeex-13b-paddle")
ROWS = [pair for pair in PAIRS if pair[1] not in COLUMNS]
"""Linear layers are rows: all but two formats, which have columns in some of them."""
RANKS = (1, 2, 4, 8)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def model_of(family, **changes):
    """Eight heads, and sizes that eight ranks can share even as pairs of int4."""
    sizes = {"vocab_size": 72, "num_heads": 8, "num_kv_heads": 2, "ffn_hidden_size": 48}
    if preset(family).num_kv_heads == preset(family).num_heads:
        sizes["num_kv_heads"] = 8
    if family == "chatglm-6b":
        sizes["residual_scale"] = preset(family).residual_scale
    if family == "glm-base":
        sizes["ffn_hidden_size"] = 256
    return tiny_model(family, **{**sizes, **changes})


def write_ours(folder, model, dtype=torch.float32, **more):
    folder.mkdir()
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    config = {"format": "glm-core", "version": 1, "model": model.config.to_dict()}
    write_json(folder / "config.json", config | more)
    return tensors


def ranks_for(format, ranks):
    return {"ranks": ranks} if FORMATS[format].is_tensor_parallel else {}


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool((raw(a) == raw(b)).all())


def limit_for(source, format, files):
    """A size limit that makes so many files."""
    kinds = Conversion(open_checkpoint(source), format_named(format)).kinds()[0]
    total = sum(map(size_of, kinds.values()))
    limits = range(total // files, total + 1, 100)
    return next(limit for limit in limits if len(_fill_shards(kinds, limit)) == files)


def raw(tensor):
    return tensor.contiguous().view(torch.uint8)


def stored_in(folder):
    """Every tensor of a folder by file and name, read by the safetensors library."""
    files = sorted(folder.glob("*.safetensors"))
    return {(file.name, name): t for file in files for name, t in load_file(file).items()}


def assert_same_files(one, other):
    a, b = stored_in(one), stored_in(other)
    assert a.keys() == b.keys()
    for name in a:
        assert same_bits(a[name], b[name]), name


def assert_holds(folder, config, tensors, format=None):
    checkpoint = open_checkpoint(folder)
    assert format is None or checkpoint.format.name == format
    assert checkpoint.config == config
    assert sorted(checkpoint.names()) == sorted(tensors)
    for name, tensor in tensors.items():
        assert same_bits(checkpoint.read(name), tensor), name
    return checkpoint


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "format"), PAIRS)
def test_round_trip_is_identity_when_a_format_holds_the_model(tmp_path, family, format, dtype):
    model = model_of(family)
    tensors = write_ours(tmp_path / "ours", model, DTYPES[dtype])
    convert(tmp_path / "ours", tmp_path / "there", format)
    assert_holds(tmp_path / "there", model.config, tensors, format)
    convert(tmp_path / "there", tmp_path / "back", "glm-lab")
    assert_same_files(tmp_path / "ours", tmp_path / "back")
    assert_holds(tmp_path / "back", model.config, tensors, "glm-lab")


@pytest.mark.parametrize(
    ("family", "one", "other", "ranks"),
    [
        *(("glm-base", "glm", "glm-hf", ranks) for ranks in RANKS),
        ("chatglm2-6b", "chatglm2", "glm4-hf", 1),
        ("chatglm2-6b-32k", "chatglm2", "glm4-hf", 1),
        ("glm-4-9b", "chatglm2", "glm4-hf", 1),
    ],
)
def test_round_trip_is_identity_when_two_released_formats_hold_the_model(
    tmp_path, family, one, other, ranks
):
    write_ours(tmp_path / "ours", model_of(family), torch.float16)
    convert(tmp_path / "ours", tmp_path / "a", one, **ranks_for(one, ranks))
    convert(tmp_path / "a", tmp_path / "b", other, max_shard_bytes=10_000)
    convert(tmp_path / "b", tmp_path / "c", one, **ranks_for(one, ranks))
    assert_same_files(tmp_path / "a", tmp_path / "c")
    assert json.loads((tmp_path / "a/config.json").read_text()) == json.loads(
        (tmp_path / "c/config.json").read_text()
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """For a format with ranks: our folder, the config and tensors in it, and 1 to 8 ranks of it."""
    made = {}

    def make(format):
        if format not in made:
            folder = tmp_path_factory.mktemp(format)
            model = model_of(TENSOR_PARALLEL[format])
            tensors = write_ours(folder / "ours", model, torch.bfloat16)
            for ranks in RANKS:
                convert(folder / "ours", folder / str(ranks), format, ranks=ranks)
            made[format] = folder, model.config, tensors
        return made[format]

    return make


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("format", TENSOR_PARALLEL)
def test_ranks_hold_the_model(split, format, ranks):
    folder, config, tensors = split(format)
    assert len(list((folder / str(ranks)).glob("mp_rank_*.safetensors"))) == ranks
    assert_holds(folder / str(ranks), config, tensors, format)


@pytest.mark.parametrize("second", RANKS)
@pytest.mark.parametrize("first", RANKS)
@pytest.mark.parametrize("format", TENSOR_PARALLEL)
def test_resharding_is_what_splitting_at_once_gives(split, tmp_path, format, first, second):
    folder, _, _ = split(format)
    convert(folder / str(first), tmp_path / "resharded", format, ranks=second)
    assert_same_files(tmp_path / "resharded", folder / str(second))


@pytest.mark.parametrize("files", RANKS)
@pytest.mark.parametrize(
    ("family", "format"),
    [pair for pair in PAIRS if not FORMATS[pair[1]].is_tensor_parallel] + [("glm-4-9b", "glm-lab")],
)
def test_round_trip_is_identity_when_files_are_several(tmp_path, family, format, files):
    model = model_of(family, num_layers=4)
    tensors = write_ours(tmp_path / "ours", model)
    limit = limit_for(tmp_path / "ours", format, files)
    convert(tmp_path / "ours", tmp_path / "there", format, max_shard_bytes=limit)
    written = sorted((tmp_path / "there").glob("*.safetensors"))
    assert len(written) == files
    sizes = [sum(t.nbytes for t in load_file(file).values()) for file in written]
    assert max(sizes) <= limit
    assert (tmp_path / "there/model.safetensors.index.json").is_file() == (files > 1)
    assert_holds(tmp_path / "there", model.config, tensors, format)
    convert(tmp_path / "there", tmp_path / "back", "glm-lab")
    assert_same_files(tmp_path / "ours", tmp_path / "back")


def test_files_are_many_when_the_limit_is_smaller_than_a_tensor(tmp_path):
    """More files than a process may hold open at once."""
    import resource

    model = model_of("glm-4-9b", num_layers=12)
    tensors = write_ours(tmp_path / "ours", model)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        convert(tmp_path / "ours", tmp_path / "there", "glm4-hf", max_shard_bytes=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(list((tmp_path / "there").glob("*.safetensors"))) > 64
    assert_holds(tmp_path / "there", model.config, tensors)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("family", HOLDS)
def test_error_names_the_field_when_a_format_cannot_hold_the_model(tmp_path, family, format):
    if format in (*HOLDS[family], "glm-lab"):
        return
    write_ours(tmp_path / "ours", model_of(family))
    message = (
        rf"^format {format} \(.*\) cannot hold this model: "
        r"(it means \w+=\S+, and the model has \S+|it (has no place for|needs) [\w.]+)"
    )
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", format)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(
    ("family", "format", "field", "changes"),
    [
        ("chatglm-6b", "chatglm", "residual_scale", {"residual_scale": 2.0}),
        ("glm-base", "glm", "ffn_hidden_size", {"ffn_hidden_size": 48}),
        ("glm-base", "glm-hf", "norm_eps", {"norm_eps": 1e-6}),
        ("glm-4-9b", "glm4-hf", "dense_bias", {"dense_bias": True}),
        ("llama-7b", "llama", "rotary_dim", {"rotary_dim": 4}),
        ("chatglm2-6b", "chatglm2", "rotary_dim", {"rotary_dim": 8}),
        ("codegeex-13b", "codegeex-13b", "gelu_form", {"gelu_form": "tanh"}),
    ],
)
def test_error_names_the_field_when_one_thing_differs(tmp_path, family, format, field, changes):
    write_ours(tmp_path / "ours", model_of(family, **changes))
    with pytest.raises(ValueError, match=f"cannot hold this model: it means {field}="):
        convert(tmp_path / "ours", tmp_path / "there", format)


def test_error_names_the_kind_when_sizes_follow_from_it(tmp_path):
    """Without the gate, the same rows would be twice as many of the second projection."""
    write_ours(tmp_path / "ours", model_of("glm-base"))
    with pytest.raises(ValueError, match="cannot hold this model: it means residual=deepnorm"):
        convert(tmp_path / "ours", tmp_path / "there", "glm-130b")


def test_fields_that_a_format_has_no_place_for_survive(tmp_path):
    changes = {
        "prompt_frame": "cls_eos",
        "score_order": "fused",
        "rope_precision": "tables",
        "reference_numerics": True,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.2,
        "init_std": 0.3,
        "embedding_grad_scale": 0.5,
    }
    model = model_of("glm-base", **changes)
    write_ours(tmp_path / "ours", model)
    convert(tmp_path / "ours", tmp_path / "there", "glm-hf")
    assert open_checkpoint(tmp_path / "there").config == model.config
    assert json.loads((tmp_path / "there/config.json").read_text())["glm_lab"] == changes


def test_config_json_has_nothing_of_ours_when_the_format_says_it_all(tmp_path):
    model = model_of("glm-4-9b", init_std=preset("glm-4-9b").init_std)
    write_ours(tmp_path / "ours", model)
    convert(tmp_path / "ours", tmp_path / "there", "chatglm2")
    assert "glm_lab" not in json.loads((tmp_path / "there/config.json").read_text())


@pytest.mark.parametrize("format", ["chatglm2", "glm4-hf", "glm-lab"])
def test_ids_and_name_go_along(tmp_path, format):
    kept = {
        "_name_or_path": "THUDM/glm-4-9b",
        "eos_token_id": [151329, 151336, 151338],
        "pad_token_id": 151329,
    }
    write_ours(tmp_path / "ours", model_of("glm-4-9b"), **kept)
    convert(tmp_path / "ours", tmp_path / "there", format)
    written = json.loads((tmp_path / "there/config.json").read_text())
    assert {name: written[name] for name in kept} == kept


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_rounded_once_when_a_dtype_is_asked_for(tmp_path, dtype):
    tensors = write_ours(tmp_path / "ours", model_of("glm-130b"))
    convert(tmp_path / "ours", tmp_path / "there", "glm-130b", ranks=2, dtype=DTYPES[dtype])
    checkpoint = open_checkpoint(tmp_path / "there")
    for name, tensor in tensors.items():
        assert same_bits(checkpoint.read(name), tensor.to(DTYPES[dtype])), name


def is_linear(name):
    return name.endswith(".weight") and name.split(".")[-2] in LINEARS


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("family", "format"), [*ROWS, ("glm-4-9b", "glm-lab")])
def test_rows_are_those_of_quantize_rows_when_quantized_on_the_way(tmp_path, family, format, bits):
    model = model_of(family)
    tensors = write_ours(tmp_path / "ours", model, torch.float16)
    convert(tmp_path / "ours", tmp_path / "there", format, bits=bits)
    checkpoint = open_checkpoint(tmp_path / "there")
    assert checkpoint.format.name == format and checkpoint.bits == bits
    assert json.loads((tmp_path / "there/config.json").read_text())["quantization_bit"] == bits
    quantized = {name for name in checkpoint.names() if checkpoint.info(name).bits}
    assert quantized == set(filter(is_linear, tensors)) and quantized
    for name, tensor in tensors.items():
        if name not in quantized:
            assert same_bits(checkpoint.read(name), tensor), name
            continue
        levels, scale = quantize_rows(tensor, bits)
        found = checkpoint.read_matrix(name)
        assert same_bits(found.levels, levels) and same_bits(found.scale, scale), name
        expected = dequantize_rows(levels, scale, bits)
        assert same_bits(checkpoint.read(name), expected), name


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("format", COLUMNS)
def test_error_names_the_format_when_its_columns_were_to_be_quantized(tmp_path, format, bits):
    write_ours(tmp_path / "ours", model_of("codegeex-13b"), torch.float16)
    message = (
        rf"--quantize is int{bits}, but format {format} stores layers.0.attention.(dense|query"
        "_key_value).weight as columns, and only rows can be quantized: add --quantize none"
    )
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", format, bits=bits)
    convert(tmp_path / "ours", tmp_path / "rows", "glm-lab", bits=bits)
    with pytest.raises(ValueError, match=message.replace(f"int{bits}", "keep")):
        convert(tmp_path / "rows", tmp_path / "there", format)
    convert(tmp_path / "rows", tmp_path / "there", format, bits=0)
    rows, there = open_checkpoint(tmp_path / "rows"), open_checkpoint(tmp_path / "there")
    assert all(same_bits(rows.read(name), there.read(name)) for name in rows.names())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("family", "format"), ROWS)
def test_round_trip_is_identity_when_rows_are_quantized(tmp_path, family, format, bits):
    write_ours(tmp_path / "ours", model_of(family), torch.float16)
    convert(tmp_path / "ours", tmp_path / "quantized", "glm-lab", bits=bits)
    convert(tmp_path / "quantized", tmp_path / "there", format, **ranks_for(format, 8))
    convert(tmp_path / "there", tmp_path / "back", "glm-lab")
    assert_same_files(tmp_path / "quantized", tmp_path / "back")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("format", TENSOR_PARALLEL)
def test_each_rank_is_quantized_by_itself_when_ranks_share_the_columns(
    tmp_path, format, ranks, bits
):
    """As the originals do: scales belong to what a rank has, and go along unchanged."""
    write_ours(tmp_path / "ours", model_of(TENSOR_PARALLEL[format]), torch.float16)
    convert(tmp_path / "ours", tmp_path / "numbers", format, ranks=ranks)
    convert(tmp_path / "ours", tmp_path / "rows", format, ranks=ranks, bits=bits)
    numbers, rows = stored_in(tmp_path / "numbers"), stored_in(tmp_path / "rows")
    scales = [key for key in rows if key[1].endswith(".weight_scale")]
    assert len(scales) == len(rows) - len(numbers) > 0
    for file, name in scales:
        name = name.removesuffix("_scale")
        levels, scale = quantize_rows(numbers[file, name], bits)
        assert same_bits(rows[file, name], levels), name
        assert same_bits(rows[file, name + "_scale"], scale), name
    convert(tmp_path / "rows", tmp_path / "again", format, ranks=ranks)
    assert_same_files(tmp_path / "rows", tmp_path / "again")


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("format", TENSOR_PARALLEL)
def test_more_ranks_inherit_the_scales_when_rows_are_resharded(tmp_path, format, bits):
    write_ours(tmp_path / "ours", model_of(TENSOR_PARALLEL[format]), torch.float16)
    convert(tmp_path / "ours", tmp_path / "two", format, ranks=2, bits=bits)
    convert(tmp_path / "two", tmp_path / "eight", format, ranks=8)
    two, eight = open_checkpoint(tmp_path / "two"), open_checkpoint(tmp_path / "eight")
    for name in two.names():
        assert same_bits(two.read(name), eight.read(name)), name
    message = (
        r"--tp is 1, but layers\.0\.attention\.dense\.weight was quantized after 2 ranks had "
        r"shared .*: choose a multiple of 2 .*, or add --quantize none"
    )
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "two", tmp_path / "one", format, ranks=1)
    name = "layers.0.attention.dense.weight"  # joined, the scales of two ranks are those of groups
    matrix, share = two.read_matrix(name), two.info(name).shape[1] // 2
    assert matrix.layout.group and share % matrix.layout.group == 0
    assert same_bits(matrix.dequantize(), two.read(name, torch.float32))


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_become_their_exact_values_when_numbers_are_asked_for(tmp_path, bits):
    tensors = write_ours(tmp_path / "ours", model_of("glm-130b"))
    convert(tmp_path / "ours", tmp_path / "rows", "glm-130b", ranks=2, bits=bits)
    convert(tmp_path / "rows", tmp_path / "there", "glm-lab", bits=0, dtype=torch.float32)
    checkpoint = open_checkpoint(tmp_path / "there")
    assert checkpoint.bits is None
    assert "quantization_bit" not in json.loads((tmp_path / "there/config.json").read_text())
    name = "layers.1.mlp.dense_h_to_4h.weight"
    levels, scale = quantize_rows(tensors[name], bits)
    assert same_bits(checkpoint.read(name), dequantize_rows(levels, scale, bits, torch.float32))


def test_zero_rows_stay_zero_when_quantized(tmp_path):
    model = model_of("glm-4-9b")
    with torch.no_grad():
        model.layers[0].mlp.dense_4h_to_h.weight[3:5] = 0
    write_ours(tmp_path / "ours", model, torch.float16)
    convert(tmp_path / "ours", tmp_path / "there", "chatglm2", bits=4)
    read = open_checkpoint(tmp_path / "there").read("layers.0.mlp.dense_4h_to_h.weight")
    assert read.isfinite().all() and not read[3:5].any()


def test_error_when_more_bits_are_asked_for_than_are_stored(tmp_path):
    write_ours(tmp_path / "ours", model_of("glm-4-9b"))
    convert(tmp_path / "ours", tmp_path / "int4", "chatglm2", bits=4)
    with pytest.raises(ValueError, match="--quantize is int8, but .*int4 stores int4 rows"):
        convert(tmp_path / "int4", tmp_path / "int8", "chatglm2", bits=8)


def test_error_when_int4_pairs_do_not_fit_before_anything_is_written(tmp_path):
    write_ours(tmp_path / "ours", model_of("glm-130b", ffn_hidden_size=40))
    message = r"--tp is 8, --quantize is int4: layers\.0\.mlp\.dense_4h_to_h\.weight: .* 5 columns"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", "glm-130b", ranks=8, bits=4)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_error_names_the_tensor_when_it_is_not_finite(tmp_path):
    model = model_of("glm-4-9b")
    with torch.no_grad():
        model.layers[1].attention.dense.weight[2, 3] = torch.nan
    write_ours(tmp_path / "ours", model)
    with pytest.raises(ValueError, match=r"ours, layers\.1\.attention\.dense\.weight: .* row 2"):
        convert(tmp_path / "ours", tmp_path / "there", "chatglm2", bits=8)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.parametrize(
    ("family", "format", "ranks", "message"),
    [
        ("glm-130b", "glm-130b", 0, "--tp is 0: it must be at least 1"),
        ("glm-130b", "glm-130b", 3, "--tp is 3: it must divide the model's 8 attention heads"),
        ("glm-4-9b", "chatglm2", 2, "--tp is 2, but format chatglm2 knows no tensor-parallel"),
    ],
)
def test_error_when_ranks_do_not_fit(tmp_path, family, format, ranks, message):
    write_ours(tmp_path / "ours", model_of(family))
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", format, ranks=ranks)


def test_error_names_the_tensor_when_its_rows_cannot_be_shared(tmp_path):
    write_ours(tmp_path / "ours", model_of("glm-130b", vocab_size=66))
    message = r"--tp is 4, .*word_embeddings\.weight cannot be shared by 4 .* 66 rows"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", "glm-130b", ranks=4)


def test_error_when_the_format_is_unknown(tmp_path):
    write_ours(tmp_path / "ours", model_of("glm-4-9b"))
    message = "checkpoint format 'gguf' is unknown: choose one of glm-lab, glm, glm-hf"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", "gguf")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "ours", tmp_path / "there", "glm-lab", source_format="gguf")


def test_override_is_used_when_the_format_is_named(tmp_path):
    write_ours(tmp_path / "ours", model_of("glm-4-9b"))
    convert(tmp_path / "ours", tmp_path / "there", "glm4-hf")
    done = convert(tmp_path / "there", tmp_path / "back", "glm-lab", source_format="glm4-hf")
    assert done.source_format == "glm4-hf"
    with pytest.raises(ValueError, match="there: the tensor|there: config.json lacks"):
        convert(tmp_path / "there", tmp_path / "other", "glm-lab", source_format="glm-130b")


def test_weights_go_alone_when_there_is_no_tokenizer(tmp_path, caplog):
    write_ours(tmp_path / "ours", model_of("glm-4-9b"))
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "ours", tmp_path / "there", "chatglm2")
    assert "no tokenizer goes along" in caplog.text
    assert (tmp_path / "there/model.safetensors").is_file()


def test_tokenizer_goes_along_when_the_source_has_one(tmp_path):
    from glm_core.checkpoint.hub import EMBEDDED
    from glm_core.tokenizer.loading import load_tokenizer

    source = EMBEDDED["nano-text"]
    convert(source, tmp_path / "numbers", "glm-lab", bits=0)
    one, other = open_checkpoint(source), open_checkpoint(tmp_path / "numbers")
    assert one.config == other.config and one.bits == 8 and other.bits is None
    for name in one.names():
        assert same_bits(one.read(name), other.read(name)), name
    before, after = load_tokenizer(source), load_tokenizer(tmp_path / "numbers")
    assert before.encode("def f(x):") == after.encode("def f(x):")
    assert before.vocab_size == after.vocab_size


def test_result_counts_parameters_and_bytes(tmp_path):
    model = model_of("glm-4-9b")
    write_ours(tmp_path / "ours", model, torch.float16)
    done = convert(tmp_path / "ours", tmp_path / "there", "glm4-hf")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (done.parameters, done.bytes) == (count, 2 * count)
    assert (done.source_format, done.format) == ("glm-lab", "glm4-hf")
    assert done.folder == Path(tmp_path / "there")


@pytest.mark.parametrize(("family", "format"), PAIRS)
def test_written_config_reads_back_as_the_preset(family, format):
    """Full-sized members, without weights: what is written says all that the preset says."""

    class Sized:
        """What `_imagined` asks of a checkpoint."""

        config, folder = replace(preset(family)), Path("nowhere")
        shapes = parameter_shapes(config)

        def info(self, name):
            return TensorInfo(self.shapes[name], torch.float16, None)

    kind = format_named(format)
    folder = _imagined(Sized(), kind, kind.write_config(Sized.config))
    assert kind.config_of(folder) == preset(family)
