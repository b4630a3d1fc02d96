"""The choice among backends."""

import logging

import pytest
import torch

from glm_core.attention import (
    BACKENDS,
    Causal,
    Full,
    MaskRequest,
    Prefixed,
    PrefixLM,
    Scaling,
    dispatch,
    prepare_attention,
)
from glm_kernels import measured

ON_CPU = [name for name in BACKENDS if name != "xformers"]


def request_for(spec, batch=2, q_len=5, q_offset=0, device="cpu"):
    kv_len = q_offset + q_len
    return MaskRequest(spec, batch, q_len, kv_len, q_offset, torch.device(device), torch.float32)


def test_unknown_backend_names_the_choices():
    message = (
        "attention backend 'flash' is unknown: choose auto, eager, sdpa, flex, triton, xformers"
    )
    with pytest.raises(ValueError, match=message):
        prepare_attention(request_for(Causal()), "flash")


def test_flex_with_dropout_is_refused_when_asked_for_by_name():
    message = (
        "attention backend 'flex' cannot be used: flex_attention has no dropout, and "
        r"attention_dropout is 0\.1; choose auto"
    )
    with pytest.raises(ValueError, match=message):
        prepare_attention(request_for(Causal()), "flex", dropout=0.1)


def test_flex_with_dropout_falls_back_with_one_warning_when_automatic(monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "_preferred", lambda request: ("flex", "sdpa"))
    dispatch._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="glm_core.attention.dispatch"):
        for _ in range(3):
            prepared = prepare_attention(request_for(PrefixLM((1, 2))), dropout=0.1)
    assert prepared.backend.name == "sdpa"
    assert [record.getMessage() for record in caplog.records] == [
        "attention falls back from flex to sdpa: "
        "flex_attention has no dropout, and attention_dropout is 0.1"
    ]


@pytest.mark.parametrize("spec", [Causal(), Full(), PrefixLM((1, 2))])
def test_automatic_choice_is_sdpa_on_cpu(spec, caplog):
    assert prepare_attention(request_for(spec)).backend.name == "sdpa"
    assert not caplog.records


@pytest.mark.parametrize("name", ON_CPU)
def test_named_backend_is_taken(name):
    assert prepare_attention(request_for(PrefixLM((1, 2))), name).backend.name == name


@pytest.mark.parametrize("name", ON_CPU)
def test_other_number_of_rows_is_refused_by_every_backend(name):
    with pytest.raises(ValueError, match="mask PrefixLM describes 3 rows but the batch has 2"):
        prepare_attention(request_for(PrefixLM((1, 2, 3))), name)


@pytest.mark.parametrize(
    ("request_", "has_tensor"),
    [
        (request_for(Full()), False),
        (request_for(Causal()), False),
        (request_for(Causal(), q_len=1, q_offset=4), False),
        (request_for(Causal(), q_len=2, q_offset=3), True),
        (request_for(PrefixLM((1, 2))), True),
        (request_for(Prefixed(Full(), 2), q_offset=2), False),
        (request_for(Prefixed(Causal(), 2), q_len=1, q_offset=4), False),
        (request_for(Prefixed(Causal(), 2), q_offset=2), True),
        (request_for(Prefixed(PrefixLM((1, 2)), 2), q_offset=2), True),
    ],
)
def test_sdpa_writes_a_mask_tensor_only_when_it_must(request_, has_tensor):
    prepared = prepare_attention(request_, "sdpa")
    assert (prepared.mask.bias is not None) == has_tensor


@pytest.mark.gpu
def test_automatic_choice_on_cuda_is_triton_when_the_mask_is_structured():
    assert prepare_attention(request_for(PrefixLM((1, 2)), device="cuda")).backend.name == "triton"
    assert prepare_attention(request_for(Causal(), device="cuda")).backend.name == "sdpa"
    decode = request_for(PrefixLM((1, 2)), q_len=1, q_offset=4, device="cuda")
    with torch.no_grad():
        prepared = prepare_attention(decode)
    assert prepared.backend.name == "triton"
    q = torch.randn(2, 1, 2, 8, device="cuda")
    k = torch.randn(2, 5, 2, 8, device="cuda")
    assert prepared(q, k, k, Scaling(0.3)).shape == q.shape


def test_order_of_preference_follows_device_mask_and_training():
    prefix = PrefixLM((1, 2))
    assert dispatch._preferred(request_for(prefix)) == ("sdpa",)
    assert dispatch._preferred(request_for(Full(), device="cuda")) == ("sdpa",)
    assert dispatch._preferred(request_for(prefix, device="cuda")) == ("triton", "flex", "sdpa")
    with torch.no_grad():
        assert dispatch._preferred(request_for(prefix, device="cuda")) == ("triton", "sdpa")


def ranked(names, case="prompt prefix single 128"):
    return measured.use_table(measured.Table(rankings={"attention": {case: names}}))


@torch.no_grad()
def test_choice_follows_what_was_measured():
    prefix, decode = request_for(PrefixLM((1, 2))), request_for(Full(), q_len=1, q_offset=9)
    with ranked(["eager", "sdpa"]):
        assert prepare_attention(prefix).backend.name == "eager"
        assert prepare_attention(request_for(Causal())).backend.name == "sdpa"
        assert prepare_attention(decode).backend.name == "cpu"  # the built-in guess
        with torch.enable_grad():
            assert prepare_attention(prefix).backend.name == "sdpa"
    assert prepare_attention(prefix).backend.name == "sdpa"
    with ranked(["eager"], "decode full single 128"):
        assert prepare_attention(decode).backend.name == "eager"


@torch.no_grad()
def test_choice_is_that_of_the_nearest_length():
    with ranked(["eager", "sdpa"], "prompt prefix single 512"):
        lengths = (128, 300, 900, 1500)
        requests = [request_for(PrefixLM((1, 2)), q_len=length) for length in lengths]
        names = [dispatch._preferred(request)[0] for request in requests]
    assert names == ["sdpa", "eager", "eager", "sdpa"]


@torch.no_grad()
def test_measured_choice_that_cannot_serve_falls_back_with_one_warning(caplog):
    dispatch._warn_once.cache_clear()
    with ranked(["flash9", "xformers", "eager", "sdpa"]):
        for _ in range(3):
            assert prepare_attention(request_for(PrefixLM((1, 2)))).backend.name == "eager"
    assert [record.getMessage() for record in caplog.records] == [
        "attention falls back from xformers to eager: xformers has kernels for GPUs, not for cpu"
    ]


@torch.no_grad()
def test_a_backend_that_serves_everything_ends_every_order():
    request = request_for(PrefixLM((1, 2)), device="cuda")
    for names, expected in [
        (["xformers"], ("xformers", "triton", "sdpa")),
        (["sdpa", "triton"], ("sdpa",)),
        (["flash9"], ("triton", "sdpa")),
    ]:
        with ranked(names):
            assert dispatch._preferred(request) == expected


def test_case_tells_use_kind_and_length_apart():
    assert dispatch.kind_of(request_for(Causal(), q_len=3, q_offset=4)) == "prefix"
    assert dispatch.kind_of(request_for(Causal(), q_len=1, q_offset=4)) == "causal"
    assert dispatch.kind_of(request_for(Prefixed(Full(), 1))) == "packed"
    lengths = [dispatch.length_class(n) for n in (1, 255, 256, 1023, 1024, 4095, 4096, 10**6)]
    assert lengths == [128, 128, 512, 512, 2048, 2048, 8192, 8192]


def test_measured_choice_holds_inside_torch_compile():
    def attend(q):
        prepared = prepare_attention(request_for(PrefixLM((1, 2))))
        assert prepared.backend.name == "eager"
        return prepared(q, q, q, Scaling(0.5))

    q = torch.randn(2, 5, 1, 4)
    with ranked(["eager", "sdpa"], "training prefix single 128"):
        compiled = torch.compile(attend, backend="eager", fullgraph=True)
        assert torch.allclose(compiled(q), attend(q))
