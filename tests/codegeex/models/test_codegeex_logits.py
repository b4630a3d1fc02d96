"""CodeGeeX-13B's logits, read from the released layout, against a transcription in plain torch."""

from itertools import pairwise

import pytest
import torch

from glm_core.attention import Causal, LeftPadded, RightPadded
from glm_core.infer.kv_cache import KVCache
from glm_core.testing import assert_relative
from glm_kernels.registry import use_backend

from .codegeex_oracle import Norms, logits
from .conftest import HEADS

VOCAB, CONTEXT = 136, 48
LENGTHS = (1, 2, 7, 23, CONTEXT)
HALVES = (torch.float16, torch.bfloat16)


def text(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (length,), generator=generator).tolist()


@torch.no_grad()
def ours(model, ids, **options):
    return model.logits(model(torch.tensor([ids]), **options))[0]


def share_equal(actual, expected):
    assert actual.dtype == expected.dtype
    return float((actual == expected).double().mean())


@pytest.mark.parametrize("reference_numerics", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_equal_the_transcription_when_computed_in_full(
    load, state, dtype, length, reference_numerics
):
    model = load(dtype, reference_numerics=reference_numerics)
    ids = text(length)
    # Worst measured: fp32 4.8e-7; fp64 6.3e-8, in the reference's order (scores in fp32).
    assert_relative(ours(model, ids), logits(state, ids, HEADS, dtype), 2e-6, f"{dtype} {length}")


@pytest.mark.parametrize("norms", Norms)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", HALVES)
def test_logits_are_the_originals_bit_for_bit_when_rounded_in_its_order(
    load, state, dtype, length, norms
):
    model = load(dtype, reference_numerics=True, norm_precision=norms.value)
    ids = text(length)
    with use_backend("torch"):  # the norms' sums in the order that the transcription's have
        found = ours(model, ids)
    expected = logits(state, ids, HEADS, dtype, norms)
    # Measured: every one. A processor may round a product of 192 rows and three of 64 apart.
    assert share_equal(found, expected) > 0.95


@pytest.mark.parametrize("dtype", HALVES)
def test_both_norms_are_told_apart_when_in_half_precision(load, state, dtype):
    ids = text(23)
    expected = {norms: logits(state, ids, HEADS, dtype, norms) for norms in Norms}
    # Measured 0.2: the weights of these norms are no fp16 numbers, as in a training checkpoint.
    assert share_equal(expected[Norms.model], expected[Norms.single]) < 0.5
    for norms in Norms:
        model = load(dtype, reference_numerics=True, norm_precision=norms.value)
        assert model.dtype == dtype
        assert model.final_norm.weight.dtype == (torch.float32 if norms is Norms.single else dtype)
        # Worst measured, with compiled norms: 7.2e-4 in fp16, none in bf16.
        assert_relative(
            ours(model, ids).float(), expected[norms].float(), 2e-3, f"{dtype} {norms.value}"
        )


def test_both_norms_are_one_when_their_weights_are_half_precision_numbers(load):
    ids, found = text(23), []
    for precision in ("model", "single"):
        model = load(torch.float16, reference_numerics=True, norm_precision=precision)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data = parameter.data.half().to(parameter.dtype)
        found.append(ours(model, ids).float())
    # Measured 0: a norm in fp16 has fp32 sums as well. What differs is the weights.
    assert_relative(found[0], found[1], 1e-3, "norms of fp16 weights")


@pytest.mark.parametrize("dtype", HALVES)
def test_own_order_loses_no_more_than_the_originals_when_in_half_precision(load, state, dtype):
    own, original, model = 0.0, 0.0, load(dtype)
    for seed in range(5):
        ids = text(CONTEXT, seed)
        exact = logits(state, ids, HEADS, torch.float64)
        own += float((ours(model, ids).double() - exact).norm())
        original += float((logits(state, ids, HEADS, dtype).double() - exact).norm())
    # Measured 0.96 times its error, in fp16 and in bf16.
    assert own < 1.1 * original


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("cuts", [(0, 1, 2, 3, 4, 5), (0, 3, 4, 17), (0, 22), (0, 1, 22)])
def test_cached_logits_equal_recomputed_ones_when_a_text_comes_in_pieces(load, state, cuts, dtype):
    reference = dtype != torch.float32
    model, ids = load(dtype, reference_numerics=reference), text(23)
    cache = KVCache.for_model(model.config, 1, len(ids), dtype)
    pieces = [
        ours(model, ids[begin:end], kv_cache=cache) for begin, end in pairwise([*cuts, len(ids)])
    ]
    assert cache.length == len(ids) and len(cache.keys) == 4  # the top-query layer has its own
    found = torch.cat(pieces)
    # Worst measured: fp32 5.5e-7, fp16 7.2e-4, bf16 0.
    tolerance = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    assert_relative(found.float(), ours(model, ids).float(), tolerance, "recomputed")
    assert_relative(found.float(), logits(state, ids, HEADS, dtype).float(), tolerance, "oracle")


@pytest.mark.parametrize("reference_numerics", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_of_odd_lengths_are_what_they_are_alone_when_padded_to_a_batch(
    load, state, side, reference_numerics
):
    model, lengths = load(reference_numerics=reference_numerics), (23, 1, 7, 15)
    longest, rows = max(lengths), [text(length, seed) for seed, length in enumerate(lengths)]
    ids, positions = torch.zeros(4, longest, dtype=torch.long), torch.zeros(4, longest)
    begins = [longest - length if side == "left" else 0 for length in lengths]
    for row, begin, here in zip(range(4), begins, rows, strict=True):
        ids[row, begin : begin + len(here)] = torch.tensor(here)
        positions[row, begin : begin + len(here)] = torch.arange(len(here))
    mask = (
        LeftPadded(Causal(), tuple(begins))
        if side == "left"
        else RightPadded(Causal(), tuple(lengths))
    )
    with torch.no_grad():
        found = model.logits(model(ids, positions.long(), mask))
    for row, begin, here in zip(range(4), begins, rows, strict=True):
        part = found[row, begin : begin + len(here)]
        # Worst measured 6.0e-7.
        assert_relative(part, logits(state, here, HEADS), 2e-6, f"{side} {len(here)}")


def test_text_longer_than_the_tables_is_refused_when_run(load):
    with pytest.raises((IndexError, ValueError)):
        ours(load(), text(CONTEXT + 1))
