"""The compiled decode step against the model's own forward, and when which of them runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from glm_core.attention import Causal, LeftPadded
from glm_core.infer import batch as batch_module
from glm_core.infer import fast_decode
from glm_core.infer.batch import DecodingBatch, RowStart
from glm_core.infer.fast_decode import FastDecoder, ThreadChoice, fast_decoder, why_not
from glm_core.infer.kv_cache import KVCache
from glm_core.model import Transformer, TransformerConfig
from glm_core.quantize import QuantizeConfig, quantize_
from glm_core.testing import TINY_FAMILIES, randomize, tiny_config
from glm_core.tune.prefix import PrefixEncoder
from glm_kernels.cpu import library
from glm_kernels.measured import Table, use_table

COLUMNS, PADS = 70, (0, 5, 66)
"""More columns than the kernel works on at once; a row that sees almost none of them."""

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")


def small_config(family: str, **changes: object) -> TransformerConfig:
    config = tiny_config(family)
    sizes = {"head_dim": 32, "hidden_size": 128, "ffn_hidden_size": 224}
    rotary = {"rotary_dim": config.rotary_dim * 4} if config.is_rotary else {}
    return replace(config, **{**sizes, **rotary, "max_position_embeddings": 96, **changes})


def small_model(family: str, bits: int = 32, dtype: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(small_config(family)).eval()
    model.init_weights(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases that show
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    model = model.to(dtype)
    if bits != 32:
        quantize_(model, QuantizeConfig(bits=bits, group=32 if bits == 4 else 0, head=bits == 4))
    return model


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def both_ways(model: Transformer, dtype: torch.dtype) -> tuple[float, float]:
    """Worst relative error of logits and cache after three columns of three padded rows."""
    torch.manual_seed(1)
    total = COLUMNS + 3
    ids_BT = torch.randint(67, (len(PADS), total))
    columns = torch.arange(total).expand(len(PADS), -1)
    places_B2T = torch.stack([columns, columns // 3], dim=1)
    mask = LeftPadded(Causal(), PADS)
    caches = [KVCache.for_model(model.config, len(PADS), total, dtype) for _ in range(2)]
    decoder, worst = FastDecoder(model), 0.0
    with torch.inference_mode():
        for cache in caches:
            model(ids_BT[:, :COLUMNS], places_B2T[..., :COLUMNS], mask, cache)
        for t in range(COLUMNS, total):
            here = slice(t, t + 1)
            hidden = model(ids_BT[:, here], places_B2T[..., here], mask, caches[0])
            places = [(place[0], place[1]) for place in places_B2T[..., t].tolist()]
            found = decoder.step(ids_BT[:, t].tolist(), places, PADS, caches[1])
            worst = max(worst, error(found, model.logits(hidden[:, -1])))
    assert caches[0].length == caches[1].length == total
    kept = [(cache.keys, cache.values) for cache in caches]
    pairs = [pair for i in range(2) for pair in zip(kept[1][i], kept[0][i], strict=True)]
    return worst, max(error(found[:, COLUMNS:], right[:, COLUMNS:]) for found, right in pairs)


@pytest.mark.parametrize("isa", [name for name in library.ISAS if name != "amx"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_step_is_the_models_own_when_weights_are_plain(family: str, isa: str) -> None:
    if isa not in library.available_isas():
        pytest.skip(f"this processor has no {isa}")
    with library.use_isa(isa):
        logits, cache = both_ways(small_model(family), torch.float32)
    assert logits < 5e-6  # measured worst 7.5e-7
    assert cache < 5e-6  # measured worst 5.0e-7


@pytest.mark.parametrize("isa", [name for name in library.ISAS if name != "amx"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["chatglm-6b", "chatglm2-6b", "glm-4-9b-0414", "codegeex-13b"])
def test_step_is_the_models_own_when_weights_are_quantized(
    family: str, bits: int, isa: str
) -> None:
    if isa not in library.available_isas():
        pytest.skip(f"this processor has no {isa}")
    with library.use_isa(isa):
        logits, cache = both_ways(small_model(family, bits), torch.float32)
    # Inputs are rounded to 15 bits on both sides; where they differ in the last bit of fp32, one
    # is sometimes rounded to the next integer. Measured worst 1.8e-4 and 6.8e-5.
    assert logits < 1e-3
    assert cache < 5e-4


@pytest.mark.parametrize("family", ["chatglm-6b", "llama-7b", "codegeex-13b"])
def test_step_is_the_models_own_when_embeddings_are_quantized(family: str) -> None:
    model = small_model(family)  # tied to the head in two of them
    quantize_(model, QuantizeConfig(bits=4, group=32, embeddings=True, head=True))
    logits, _ = both_ways(model, torch.float32)
    assert logits < 1e-3  # measured worst 9.0e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_step_is_close_when_the_model_is_in_half_precision(dtype: torch.dtype) -> None:
    for bits in (32, 4):
        logits, cache = both_ways(small_model("chatglm2-6b", bits, dtype), dtype)
        # The forward rounds after every operation, the step only what it stores.
        assert logits < 4e-2  # measured worst 1.2e-2, bf16
        assert cache < 3e-2  # measured worst 8.4e-3, bf16


def greedy(model: Transformer, rows: int = 2) -> list[list[int]]:
    starts = [
        RowStart([5 + i for i in range(6 - row)], [(i, 0) for i in range(6 - row)], 0)
        for row in range(rows)
    ]
    batch, written = DecodingBatch(model, starts, 8), []
    for step in range(20):  # more than there was room for at first
        chosen = batch.logits_BV.argmax(-1).tolist()
        written.append(chosen)
        batch.step([(token, (6 - row + step, 0)) for row, token in enumerate(chosen)])
    return written


@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize(("family", "front"), [("glm-4-9b", 0), ("codegeex-13b", 3)])
def test_tokens_are_equal_when_batches_decode_either_way(
    family: str, front: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_model(family, bits)
    if front:
        model.prefix = PrefixEncoder(model.config, front).eval()
        randomize(model.prefix, 1)
    steps = []
    original = FastDecoder.step
    monkeypatch.setattr(FastDecoder, "step", lambda *args: (steps.append(1), original(*args))[1])
    found = greedy(model)
    assert len(steps) == 20
    monkeypatch.setattr(batch_module, "column_decoder", lambda _: None)
    assert found == greedy(model)
    assert len(steps) == 20


def test_model_itself_is_called_when_there_are_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_decode, "MOST_ROWS", 1)
    monkeypatch.setattr(FastDecoder, "step", None)
    assert len(greedy(small_model("llama-7b"))) == 20


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_number_of_rows_is_that_which_was_measured_for_such_weights(bits: int) -> None:
    model = small_model("llama-7b", bits)
    assert FastDecoder(model).most_rows == fast_decode.MOST_ROWS
    step = {f"b{bits}": {"most_rows": 2}, f"b{12 - bits}": {"most_rows": 99}}
    with use_table(Table(configs={"decode_step": step})):
        assert FastDecoder(model).most_rows == 2


def test_backend_that_was_chosen_by_name_computes_columns_too() -> None:
    model = small_model("llama-7b")
    model.choose_attention("eager")
    assert why_not(model) == "attention backend eager was chosen by name"


def test_weights_are_read_anew_when_more_text_is() -> None:
    model = small_model("llama-7b")
    start = RowStart([1, 2, 3], [(0, 0), (1, 0), (2, 0)], 0)
    batch = DecodingBatch(model, [start], 8)
    before = batch.step([(4, (3, 0))]).clone()
    batch.rewind(1)
    model.output_layer = nn.Linear(128, 67, bias=False)
    batch.extend([2, 3], [(1, 0), (2, 0)])
    assert not torch.allclose(before, batch.step([(4, (3, 0))]), atol=1e-2)


class _OwnLinear(nn.Linear):
    """Stands for whatever replaces a linear layer, such as an adapter."""


def _with_hook(model: Transformer) -> None:
    model.layers[0].register_forward_hook(lambda *_: None)


def _with_own_linear(model: Transformer) -> None:
    model.layers[0].mlp.dense_4h_to_h = _OwnLinear(224, 128)


def _in_double(model: Transformer) -> None:
    model.double()


def _unpacked(model: Transformer) -> None:
    quantize_(model, QuantizeConfig(bits=8))
    model.layers[1].attention.dense.unpack()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.train(), "training mode"),
        (_with_hook, "Block of its own kind, or with hooks"),
        (_with_own_linear, "_OwnLinear of its own kind"),
        (_in_double, "a weight is torch.float64 on cpu, not fp32"),
        (_unpacked, "not in the kernels' order"),
        (lambda model: model.to("meta"), "not fp32, bf16 or fp16 on the CPU"),
    ],
)
def test_model_is_left_to_its_forward_when_the_step_does_not_know_it(change, reason) -> None:
    model = small_model("chatglm2-6b")
    assert why_not(model) is None
    change(model)
    assert reason in str(why_not(model))
    assert fast_decoder(model) is None
    with pytest.raises(ValueError, match="the compiled decode step cannot run this model"):
        FastDecoder(model)


def test_model_is_left_to_its_forward_when_its_sizes_do_not_fit() -> None:
    reason = why_not(Transformer(tiny_config("llama-7b")).eval())
    assert reason == "heads have 8 dims: not a multiple of 16 up to 256"
    model = Transformer(small_config("llama-7b", ffn_hidden_size=100)).eval()
    assert "of shape [128, 100] is not contiguous rows of 16 columns" in str(why_not(model))


def test_place_is_refused_when_the_model_has_no_such_position() -> None:
    model = small_model("codegeex-13b")
    cache = KVCache.for_model(model.config, 1, 4)
    with pytest.raises(IndexError, match=r"place \(96, 0\) must be below \(96, "):
        FastDecoder(model).step([1], [(96, 0)], [0], cache)


def test_one_thread_is_chosen_when_it_is_faster() -> None:
    choice, used = ThreadChoice(4, is_small=True), []
    for _ in range(80):
        used.append(choice.next())
        choice.add(used[-1], 0.001 if used[-1] == 1 else 0.01)
    assert used[:6] == [1, 4, 1, 4, 1, 1] and used[64:70] == [1, 4, 1, 4, 1, 1]
    assert used.count(4) == 4


def test_all_threads_compute_when_the_model_is_large() -> None:
    choice = ThreadChoice(4, is_small=False)
    choice.add(choice.next(), 1.0)
    assert choice.next() == 4
