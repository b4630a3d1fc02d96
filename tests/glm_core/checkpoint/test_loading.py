"""Models loaded from folders: every way to ask for them, and what keeps them from loading."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glm_core.checkpoint import loading
from glm_core.checkpoint.convert import convert
from glm_core.checkpoint.files import CheckpointError, write_safetensors
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.memory_plan import Choice, Planner
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.model import Transformer
from glm_core.quantize import Layout, QuantizedLinear, dequantize_rows, quantize_rows
from glm_core.testing import tiny_model
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer
from glm_kernels import use_backend

IDS = torch.tensor([[1, 5, 3, 2, 9, 11]])
MATRIX = "layers.1.mlp.dense_h_to_4h.weight"


@pytest.fixture(scope="module")
def tokenizer() -> ByteBPETokenizer:
    return ByteBPETokenizer.train(["some words and more words"], 300)


def saved(
    tokenizer: ByteBPETokenizer, folder: Path, dtype: torch.dtype = torch.float32, **changes: Any
) -> Transformer:
    model = tiny_model("glm-4-9b", vocab_size=300, **changes).to(dtype)
    save_pretrained(model, tokenizer, folder)
    return model


@pytest.fixture(scope="module")
def folder(tokenizer: ByteBPETokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("loading") / "model"
    saved(tokenizer, path)
    return path


@pytest.fixture(scope="module")
def half_folder(tokenizer: ByteBPETokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("loading") / "half"
    saved(tokenizer, path, torch.float16)
    return path


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_logits_are_equal_when_loaded_back(folder: Path, tokenizer: ByteBPETokenizer) -> None:
    model = tiny_model("glm-4-9b", vocab_size=300)
    loaded, their_tokenizer = load_model(folder)
    assert not loaded.training and loaded.config == model.config
    assert torch.equal(loaded.logits(loaded(IDS)), model.logits(model(IDS)))
    assert their_tokenizer.encode("some words") == tokenizer.encode("some words")


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether the kernel knows the tensor's memory as that of a file."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= address < end:
            return line.endswith("model.safetensors")
    return False


linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")


@linux
def test_weights_are_mapped_when_they_are_stored_as_needed(folder: Path, half_folder: Path) -> None:
    assert all(map(is_mapped, load_model(folder)[0].parameters()))
    assert not any(map(is_mapped, load_model(folder, dtype="bfloat16")[0].parameters()))
    assert all(map(is_mapped, load_model(half_folder, dtype="float16")[0].parameters()))


def test_file_stays_as_it_is_when_mapped_weights_are_changed(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model, _ = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert (folder / "model.safetensors").read_bytes() == before
    again, _ = load_model(folder)
    assert not torch.equal(again.final_norm.weight, model.final_norm.weight)


def test_loaded_model_trains_when_it_is_mapped(folder: Path) -> None:
    model, _ = load_model(folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        total, _ = model.loss(model(IDS), IDS)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(total.item())
    assert losses[2] < losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16", torch.float64])
def test_every_weight_is_converted_when_a_dtype_is_asked_for(
    folder: Path, dtype: torch.dtype | str
) -> None:
    wanted = dtype if isinstance(dtype, torch.dtype) else torch.float16
    loaded, _ = load_model(folder, dtype=dtype)
    stored = state_of(folder)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == wanted and torch.equal(tensor, stored[name].to(wanted)), name


@pytest.mark.parametrize(
    ("stored", "has_amx", "expected"),
    [
        (torch.float16, True, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.bfloat16, False, torch.float32),
        (torch.float32, True, torch.float32),
    ],
)
def test_dtype_loses_nothing_when_none_is_asked_for(
    stored: torch.dtype,
    has_amx: bool,
    expected: torch.dtype,
    tokenizer: ByteBPETokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved(tokenizer, tmp_path / "m", stored)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    loaded, _ = load_model(tmp_path / "m")
    assert {parameter.dtype for parameter in loaded.parameters()} == {expected}


@pytest.mark.parametrize("bits", [8, 4])
def test_each_matrix_is_quantized_as_stored_when_asked(half_folder: Path, bits: int) -> None:
    loaded, _ = load_model(half_folder, quantize=f"int{bits}")
    stored = state_of(half_folder)
    for name, module in loaded.named_modules():
        if isinstance(module, QuantizedLinear):
            levels, scale = quantize_rows(stored[f"{name}.weight"], bits)
            assert torch.equal(module.matrix().levels, levels)
            assert torch.equal(module.matrix().scale, scale)
    quantized = sum(isinstance(module, QuantizedLinear) for module in loaded.modules())
    assert quantized == 8 and loaded.word_embeddings.weight.dtype == torch.float32


@pytest.fixture(scope="module", params=[8, 4])
def quantized(
    request: pytest.FixtureRequest, half_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A folder stored with quantized rows, and how many bits."""
    path: Path = tmp_path_factory.mktemp("loading") / "quantized"
    convert(half_folder, path, "glm-lab", bits=request.param)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((half_folder / name).read_bytes())
    return path, request.param


@linux
def test_stored_rows_stay_when_nothing_is_asked_for(quantized: tuple[Path, int]) -> None:
    folder, bits = quantized
    loaded, _ = load_model(folder)
    module = loaded.get_submodule(MATRIX.removesuffix(".weight"))
    assert isinstance(module, QuantizedLinear) and module.bits == bits
    assert torch.equal(module.matrix().levels, state_of(folder)[MATRIX])
    with use_backend("torch", "linear_weight_only"):  # nothing that needs an order of its own
        loaded, _ = load_model(folder)
    levels = loaded.get_submodule(MATRIX.removesuffix(".weight")).weight
    assert torch.equal(levels, state_of(folder)[MATRIX]) and is_mapped(levels)


def test_stored_rows_become_numbers_when_none_is_asked_for(quantized: tuple[Path, int]) -> None:
    folder, bits = quantized
    loaded, _ = load_model(folder, quantize="none")
    state = state_of(folder)
    expected = dequantize_rows(state[MATRIX], state[f"{MATRIX}_scale"], bits, torch.float32)
    assert torch.equal(loaded.state_dict()[MATRIX], expected)
    with use_backend("torch", "linear_weight_only"):
        kept, _ = load_model(folder)
    ours, theirs = kept.logits(kept(IDS)), loaded.logits(loaded(IDS))
    # measured worst difference 6e-7 of the largest logit: sums in another order
    assert (ours - theirs).abs().max() < 5e-6 * theirs.abs().max()


def test_bits_that_were_lost_are_not_asked_back(quantized: tuple[Path, int]) -> None:
    folder, bits = quantized
    if bits == 4:
        with pytest.raises(ValueError, match="quantize is int8, but .* int4 matrices.*use quantiz"):
            load_model(folder, quantize="int8")
    else:
        loaded, _ = load_model(folder, quantize="int4")
        module = loaded.get_submodule(MATRIX.removesuffix(".weight"))
        assert isinstance(module, QuantizedLinear) and module.bits == 4


def test_compact_file_becomes_numbers_when_kept(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    model = tiny_model("glm-4-9b", vocab_size=300)
    save_pretrained(model, tokenizer, tmp_path / "m", quantize="int8")
    loaded, _ = load_model(tmp_path / "m")
    assert not any(isinstance(module, QuantizedLinear) for module in loaded.modules())


def test_plan_is_told_before_a_weight_is_read(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading.WeightReader, "read", lambda *_: pytest.fail("read a weight"))
    caplog.set_level(logging.INFO, logger="glm_core")
    with pytest.raises(pytest.fail.Exception):
        load_model(folder)
    assert re.search(rf"{folder} on cpu: \d.* kB of .* free on cpu \(weights", caplog.text)
    caplog.clear()
    with pytest.raises(
        ValueError, match=r"needs .* even if no layer stays .* max_memory is 1.0 kB"
    ):
        load_model(folder, max_memory="1kB")
    assert caplog.text == ""


def limit_for(folder: Path, resident: int, num_layers: int) -> int:
    config = load_model(folder)[0].config
    return Planner(config, "").plan(Choice(torch.float32, None, 48, resident)).total


def test_logits_are_equal_when_layers_are_offloaded(
    tokenizer: ByteBPETokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = saved(tokenizer, tmp_path / "m", num_layers=6)
    caplog.set_level(logging.INFO, logger="glm_core")
    limit = limit_for(tmp_path / "m", resident=2, num_layers=6)
    loaded, _ = load_model(tmp_path / "m", max_memory=limit)
    assert "2 of 6 layers resident" in caplog.text and "tokens/s" in caplog.text
    with torch.no_grad():
        for _ in range(2):  # the circle closes
            assert torch.equal(loaded.logits(loaded(IDS)), model.logits(model(IDS)))


def test_offloading_asks_for_stored_rows_when_it_would_quantize_each_time(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    saved(tokenizer, tmp_path / "m", num_layers=8)
    config = load_model(tmp_path / "m")[0].config
    limit = Planner(config, "").plan(Choice(torch.float32, Layout(8), 48, 1)).total
    message = rf"`glm convert {tmp_path / 'm'} OUT --quantize int8` once"
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m", max_memory=limit, quantize="int8")


def test_rows_are_streamed_when_they_are_stored(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    saved(tokenizer, tmp_path / "m", num_layers=8)
    convert(tmp_path / "m", tmp_path / "q", "glm-lab", bits=4)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "q" / name).write_bytes((tmp_path / "m" / name).read_bytes())
    with use_backend("torch", "linear_weight_only"):  # as layers that pass are multiplied
        whole, _ = load_model(tmp_path / "q")
        limit = Planner(whole.config, "").plan(Choice(torch.float32, Layout(4), 48, 1)).total
        loaded, _ = load_model(tmp_path / "q", max_memory=limit)
    with torch.no_grad():
        assert torch.equal(loaded.logits(loaded(IDS)), whole.logits(whole(IDS)))


def test_context_is_refused_when_the_model_is_shorter(folder: Path) -> None:
    with pytest.raises(ValueError, match="context is 49: it must be between 1 and 48"):
        load_model(folder, context=49)


def test_progress_is_told_when_it_takes_long(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="glm_core")
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("glm_core.progress.time.monotonic", lambda: float(next(clock)))
    load_model(folder)
    assert re.search(r"loading 0\.\d/0\.\d MB \(.* MB/s, eta \d+s\)", caplog.text)
    caplog.clear()
    load_model(folder, progress=False)
    assert "MB/s" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int3"}, "quantize is 'int3'; use one of: keep, none, int8, int4"),
        ({"dtype": "int8"}, "dtype is int8: use one of float32, bfloat16, float16"),
        ({"device": "gpu"}, "device is 'gpu'; use auto, cpu or cuda"),
        ({"max_memory": "much"}, "max_memory is 'much': give bytes, or a number with a unit"),
        ({"format": "unknown"}, "unknown"),
        ({"prompt_activation_bits": 8}, "is 8 .*, but no matrix of the model is quantized"),
    ],
)
def test_error_names_the_argument_when_it_is_not_valid(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_model(folder, **options)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2.*this program reads version 1"),
        ({"model": {"vocab_size": 3}}, "config.json"),
        ({"model": {"wings": 2}}, "config.json.*wings"),
    ],
)
def test_error_names_config_when_unknown(
    tokenizer: ByteBPETokenizer, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved(tokenizer, tmp_path / "m")
    edit(tmp_path / "m" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop", "lacks the tensor final_norm.weight"),
        ("add", "has the tensor wings"),
        ("reshape", r"final_norm.weight with shape \[3\].*\[32\]"),
    ],
)
def test_error_names_tensor_when_weights_do_not_fit(
    tokenizer: ByteBPETokenizer, tmp_path: Path, change: str, message: str
) -> None:
    tensors = dict(saved(tokenizer, tmp_path / "m").state_dict())
    if change == "drop":
        del tensors["final_norm.weight"]
    elif change == "add":
        tensors["wings"] = torch.ones(2)
    else:
        tensors["final_norm.weight"] = torch.ones(3)
    write_safetensors(tmp_path / "m" / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "m")) + ".*" + message):
        load_model(tmp_path / "m")


def test_error_names_file_when_weights_are_truncated(
    tokenizer: ByteBPETokenizer, tmp_path: Path
) -> None:
    saved(tokenizer, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated.*again"):
        load_model(tmp_path / "m")


@pytest.mark.gpu
@pytest.mark.parametrize("quantize", ["keep", "int8"])
def test_model_is_on_the_device_when_it_is_cuda(half_folder: Path, quantize: str) -> None:
    loaded, _ = load_model(half_folder, device="cuda", quantize=quantize)
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"cuda"}
    assert loaded.word_embeddings.weight.dtype == torch.float16
    on_cpu, _ = load_model(half_folder, quantize=quantize)
    ours, theirs = loaded.logits(loaded(IDS.cuda())).cpu().float(), on_cpu.logits(on_cpu(IDS))
    assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()
