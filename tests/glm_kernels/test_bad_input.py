"""What the ops refuse, each with one line that says what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import glm_kernels
from glm_kernels import (
    VisibleKeys,
    available_backends,
    geglu,
    gelu,
    swiglu,
    use_backend,
)

X = torch.ones(2, 3, 8)
INTEGERS = torch.ones(2, 3, 8, dtype=torch.int64)
META = torch.ones(2, 3, 8, device="meta")
W = torch.ones(8)
HEADS = torch.ones(2, 3, 2, 8)
LONG = HEADS.long()
COS = torch.ones(1, 3, 4)
LABELS = torch.ones(6, dtype=torch.int64)
HIDDEN, HEAD = torch.ones(6, 4), torch.ones(9, 4)
BOUND = torch.ones(1, 3, dtype=torch.int32)
SEEN = VisibleKeys(BOUND, BOUND)
IMAGE, CHANNELS = torch.ones(2, 6, 5), torch.ones(6)
CONDITION = torch.ones(2, 8)

Call = Callable[[], Any]


def norm_cases(name: str) -> list[tuple[str, Call, str]]:
    """Each norm by its arguments: streams, weight, bias where it has one, eps."""
    function = getattr(glm_kernels, name)
    count, biased = 1 + name.startswith("add_"), name.endswith("layer_norm")

    def call(x: Tensor = X, weight: Tensor = W, eps: float = 1e-5, other: Tensor | None = None):
        streams = [x, x if other is None else other][:count]
        return function(*streams, weight, *([None] if biased else []), eps)

    cases = [
        ("integer x", lambda: call(x=INTEGERS), r"is torch.int64 of shape \[2, 3, 8\].* floating"),
        ("weight too long", lambda: call(weight=torch.ones(9)), r"weight is .* \[9\] .* \[8\]"),
        ("weight of one", lambda: call(weight=torch.ones(1)), r"weight is .* \[1\] .* \[8\] there"),
        ("weight elsewhere", lambda: call(x=META), "weight is .* on cpu: with x .* on meta"),
        ("integer weight", lambda: call(weight=W.long()), "weight is torch.int64 .* floating"),
        ("eps of 0", lambda: call(eps=0.0), "eps is 0.0: it must be above 0, such as 1e-5"),
        ("eps below 0", lambda: call(eps=-1.0), "eps is -1.0: it must be above 0"),
        ("eps is NaN", lambda: call(eps=float("nan")), "eps is nan: it must be above 0"),
    ]
    if count == 2:
        cases += [
            (
                "short residual",
                lambda: call(other=X[:1]),
                r"residual is .* \[1, 3, 8\] on cpu: with x",
            ),
            ("residual elsewhere", lambda: call(other=META), "residual is .* on meta: with x"),
        ]
    if biased:
        streams = [X] * count
        cases.append(
            ("bias", lambda: function(*streams, W, W[:4], 1e-5), r"bias is .* of shape \[4\]")
        )
    return [(f"{name}: {title}", call, message) for title, call, message in cases]


def rope(x: Tensor = HEADS, cos: Tensor = COS, sin: Tensor | None = None) -> Tensor:
    return glm_kernels.apply_rope(x, cos, cos if sin is None else sin)


def rope_2d(x: Tensor = HEADS, cos: Tensor = COS[..., :2]) -> Tensor:
    return glm_kernels.apply_rope_2d(x, cos, cos, cos, cos)


def softmax(mask: Tensor, scores: Tensor = X) -> Tensor:
    return glm_kernels.scale_mask_softmax(scores, mask, 1.0)


def attend(visible: VisibleKeys = SEEN, **change: Tensor) -> Tensor:
    given = {"q": HEADS, "k": HEADS, "v": HEADS} | change
    return glm_kernels.attention(*given.values(), visible, 1.0)


def loss(
    hidden: Tensor = HIDDEN, weight: Tensor = HEAD, labels: Tensor = LABELS, **options: Any
) -> Tensor:
    return glm_kernels.fused_linear_cross_entropy(hidden, weight, labels, **options)


def group_norm(
    x: Tensor = IMAGE, groups: int = 3, weight: Tensor = CHANNELS, eps: float = 1e-5
) -> Tensor:
    return glm_kernels.group_norm_silu(x, groups, weight, weight, eps)


def modulate(x: Tensor = X, scale: Tensor = CONDITION, eps: float = 1e-5) -> Tensor:
    return glm_kernels.modulate(x, scale, scale, eps)


CASES: list[tuple[str, Call, str]] = [
    *(
        case
        for name in ("rms_norm", "layer_norm", "add_rms_norm", "add_layer_norm")
        for case in norm_cases(name)
    ),
    ("rope: integers", lambda: rope(HEADS.long()), "x is torch.int64 .* floating point"),
    ("rope: wide", lambda: rope(cos=torch.ones(3, 5)), "rotate 10 dims but a head of x has 8"),
    ("rope: long", lambda: rope(cos=torch.ones(4, 4)), r"cos has shape \[4, 4\] .* \[B, T, R\]"),
    ("rope: sin", lambda: rope(sin=COS[:, :1]), r"sin \[1, 1, 4\] on cpu: with x of shape"),
    ("rope: elsewhere", lambda: rope(cos=COS.to("meta")), "cos .* on meta and sin .* on meta"),
    ("rope: heads", lambda: rope(cos=torch.ones(2, 3, 2, 4)), r"cos has shape \[2, 3, 2, 4\]"),
    ("2d: integers", lambda: rope_2d(HEADS.long()), "x is torch.int64 .* floating point"),
    ("2d: wide", lambda: rope_2d(cos=COS), "rotate 8 dims .* has 8: .* rotary_dim of half a head"),
    ("gelu: integers", lambda: gelu(INTEGERS, "tanh"), "x is torch.int64: .* float"),
    ("gelu: form", lambda: gelu(X, "fast"), "'fast': it can be tanh, none, quick"),
    ("geglu: odd", lambda: geglu(X[..., 1:], "first", "tanh"), "dimension must be even"),
    ("geglu: half", lambda: geglu(X, "left", "tanh"), "'left': it can be first, second"),
    ("geglu: form", lambda: geglu(X, "first", "quick"), "'quick': it can be tanh, none"),
    ("swiglu: odd", lambda: swiglu(X[..., 1:]), r"\[2, 3, 7\]: its last .* be even"),
    ("swiglu: integers", lambda: swiglu(INTEGERS), "x is torch.int64 .* floating"),
    ("swiglu: a number", lambda: swiglu(torch.tensor(1.0)), r"shape \[\]: it must be"),
    ("softmax: dtype", lambda: softmax(X), "mask is torch.float32 .* it must be torch.bool on cpu"),
    ("softmax: shape", lambda: softmax(X[:, :2].bool()), r"mask .* \[2, 2, 8\] .* to the scores"),
    ("softmax: dims", lambda: softmax(X[None].bool()), r"mask .* \[1, 2, 3, 8\] on cpu: it must"),
    ("softmax: elsewhere", lambda: softmax(META.bool()), "mask .* on meta: it must be .* on cpu"),
    ("softmax: integers", lambda: softmax(X.bool(), INTEGERS), "scores is torch.int64"),
    ("attention: mixed", lambda: attend(k=HEADS.half()), "q is torch.float32, k torch.float16, v"),
    ("attention: integers", lambda: attend(q=LONG, k=LONG, v=LONG), "one floating"),
    ("attention: elsewhere", lambda: attend(k=HEADS.to("meta")), "k on meta, v on cpu: move"),
    ("attention: mask", lambda: attend(VisibleKeys(BOUND, BOUND[:, :2])), r"stop is .* \[1, 2\]"),
    (
        "attention: mask dtype",
        lambda: attend(VisibleKeys(BOUND.long(), BOUND)),
        "start is torch.int64",
    ),
    ("loss: integers", lambda: loss(HIDDEN.long(), HEAD.long()), "hidden is torch.int64, weight"),
    ("loss: labels", lambda: loss(labels=LABELS.int()), "labels must be torch.int64"),
    ("loss: elsewhere", lambda: loss(weight=HEAD.to("meta")), "weight is on meta but hidden is on"),
    ("loss: label", lambda: loss(labels=LABELS * 9), "labels has 9, outside the vocabulary"),
    ("loss: below 0", lambda: loss(labels=-LABELS), "labels has -1, outside the vocabulary"),
    ("group norm: groups", lambda: group_norm(groups=4), r"C a multiple of the 4 groups"),
    ("group norm: none", lambda: group_norm(groups=0), r"C a multiple of the 0 groups"),
    ("group norm: weight", lambda: group_norm(weight=W), r"weight .* \[8\] .* must be \[6\]"),
    ("group norm: integers", lambda: group_norm(IMAGE.long()), "x is torch.int64"),
    ("group norm: eps", lambda: group_norm(eps=0.0), "eps is 0.0: it must be above 0"),
    ("group norm: elsewhere", lambda: group_norm(weight=CHANNELS.to("meta")), "weight .* on meta"),
    ("modulate: shape", lambda: modulate(scale=CONDITION[:1]), r"scale has shape \[1, 8\] and x"),
    ("modulate: integers", lambda: modulate(INTEGERS), "x is torch.int64"),
    ("modulate: eps", lambda: modulate(eps=-1e-5), "eps is -1e-05: it must be above 0"),
    ("modulate: elsewhere", lambda: modulate(scale=CONDITION.to("meta")), "scale is .* on meta"),
    (
        "gate_modulate: residual",
        lambda: glm_kernels.gate_modulate(X, X[:1], CONDITION, CONDITION, CONDITION, 1e-5),
        r"residual is .* \[1, 3, 8\] .* \[2, 3, 8\] there",
    ),
]


NAMES = [case[0] for case in CASES]


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in CASES], ids=NAMES)
def test_argument_is_refused_with_the_rule(call: Call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", available_backends("rms_norm", "cpu"))
def test_refusal_does_not_depend_on_the_backend(backend: str) -> None:
    with use_backend(backend), pytest.raises(ValueError, match=r"weight is .* of shape \[1\]"):
        glm_kernels.rms_norm(X, W[:1], 1e-5)
    with use_backend(backend), pytest.raises(ValueError, match="dimension must be even"):
        swiglu(X[..., 1:])
