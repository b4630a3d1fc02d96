"""The compiled backend: every mask against the definition, refusals, and a model that uses it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glm_core.attention import Causal, Full, LeftPadded, MaskRequest, Prefixed, prepare_attention
from glm_core.attention.backend import Scaling
from glm_core.attention.compiled import CompiledAttention
from glm_core.infer.kv_cache import KVCache
from glm_core.testing import assert_relative, tiny_model
from glm_kernels.cpu import library

from .numpy_oracle import attention, visible_matrix
from .test_backends import COLUMNS, MASKS, draw

pytestmark = pytest.mark.skipif(library.unavailable() is not None, reason="no compiled kernels")

# Worst measured: fp32 3.5e-7, bf16 3.9e-3, fp16 4.9e-4.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def request_for(spec=None, offset=0, dtype=torch.float32, device="cpu", **more):
    spec = spec or Causal()
    device = torch.device(device)
    return MaskRequest(spec, 3, COLUMNS - offset, COLUMNS, offset, device, dtype, **more)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("heads", "dtype"),
    [((4, 2, 16), torch.float32), ((6, 1, 32), torch.bfloat16), ((3, 3, 48), torch.float16)],
)
def test_kernel_equals_definition(mask, heads, dtype):
    for offset in (0, 6, COLUMNS - 1):
        q, k, v, _ = draw((*heads, offset), dtype)
        visible = visible_matrix(MASKS[mask], 3, COLUMNS - offset, COLUMNS, offset)
        arrays = [x.detach().double().numpy() for x in (q, k, v)]
        expected = attention(*arrays, visible)
        with torch.no_grad():
            prepared = prepare_attention(request_for(MASKS[mask], offset, dtype), "cpu")
            actual = prepared(q, k, v, Scaling(heads[2] ** -0.5))
        assert actual.dtype == dtype
        assert_relative(actual, expected, TOLERANCE[dtype], f"{mask} {heads} {offset}")


@pytest.mark.parametrize(
    ("request_", "dropout", "message"),
    [
        (request_for(), 0.1, r"the kernel has no dropout, and attention_dropout is 0\.1"),
        (request_for(device="cuda"), 0.0, "it runs on CPUs, not on cuda"),
        (request_for(dtype=torch.float64), 0.0, "takes fp32, bf16 and fp16, not torch.float64"),
        (request_for(LeftPadded(Prefixed(Causal(), 2), (0, 1, 2))), 0.0, "is no interval of keys"),
    ],
)
def test_backend_refuses_when_the_kernel_has_no_path(request_, dropout, message):
    with pytest.raises(ValueError, match=message):
        prepare_attention(request_, "cpu", dropout)


ONE = request_for(offset=COLUMNS - 1)


@pytest.mark.parametrize(
    ("request_", "faster"),
    [
        (ONE, True),
        (replace(ONE, spec=Full()), True),
        (replace(ONE, dtype=torch.bfloat16), True),
        (replace(ONE, dtype=torch.bfloat16, batch=1), False),
        (replace(ONE, dtype=torch.bfloat16, batch=1, group=2), True),
        (replace(ONE, q_len=4, q_offset=COLUMNS - 4), False),
        (replace(ONE, q_len=4, q_offset=COLUMNS - 4, group=16), True),
        (replace(ONE, q_len=5, q_offset=COLUMNS - 5, group=16), False),
        (replace(ONE, head_dim=8), False),
    ],
)
def test_automatic_choice_takes_it_when_it_was_measured_to_be_faster(request_, faster):
    with torch.no_grad():
        assert prepare_attention(request_).backend.name == ("cpu" if faster else "sdpa")
    assert prepare_attention(request_).backend.name == "sdpa"  # with gradients


def test_model_decodes_as_it_reads_when_texts_are_padded(monkeypatch):
    model = tiny_model("chatglm2-6b", head_dim=16)
    ids = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = LeftPadded(Causal(), (0, 3, 5))
    taken = []
    attend = CompiledAttention.attend
    monkeypatch.setattr(
        CompiledAttention, "attend", lambda *a: taken.append(a[2].shape[1]) or attend(*a)
    )
    with torch.no_grad():
        model.choose_attention("sdpa")
        expected = model(ids, mask=mask)
        model.choose_attention("auto")
        cache = KVCache.for_model(model.config, 3, 9)
        parts = [model(ids[:, :6], mask=mask, kv_cache=cache)]
        parts += [model(ids[:, :8][:, 6:], mask=mask, kv_cache=cache)]
        parts += [model(ids[:, 8:], mask=mask, kv_cache=cache)]
    assert taken == [2, 2, 1, 1]  # columns of both layers
    seen = torch.arange(9) >= torch.tensor(mask.pads)[:, None]  # where padding stands is no matter
    # measured 4.8e-7
    torch.testing.assert_close(torch.cat(parts, 1)[seen], expected[seen], rtol=1e-5, atol=5e-6)
