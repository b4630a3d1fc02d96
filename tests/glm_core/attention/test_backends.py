"""Every backend against the definition of attention, forward and backward, for every mask."""

import pytest
import torch

from glm_core.attention import (
    BACKENDS,
    Causal,
    Full,
    LeftPadded,
    MaskRequest,
    Packed,
    Prefixed,
    PrefixLM,
    RightPadded,
    Scaling,
    prepare_attention,
)
from glm_core.testing import assert_relative

from .numpy_oracle import attention, visible_matrix

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

# All describe three rows of 13 columns.
MASKS = {
    "causal": Causal(),
    "full": Full(),
    "prefix": PrefixLM((4, 0, 13)),
    "packed": Packed((((5, 2), (8, 3)), ((3, 3), (1, 0), (6, 6)), ((13, 0),))),
    "left_causal": LeftPadded(Causal(), (0, 3, 7)),
    "left_prefix": LeftPadded(PrefixLM((4, 2, 6)), (0, 3, 7)),
    "left_packed": LeftPadded(
        Packed((((5, 2), (8, 3)), ((3, 3), (6, 2)), ((4, 1), (2, 2)))), (0, 4, 7)
    ),
    "right_full": RightPadded(Full(), (13, 9, 1)),
    "right_causal": RightPadded(Causal(), (13, 9, 1)),
    "right_prefix": RightPadded(PrefixLM((4, 2, 1)), (13, 9, 5)),
    "left_of_right": LeftPadded(RightPadded(PrefixLM((4, 2, 3)), (13, 7, 5)), (0, 3, 7)),
    "right_of_left": RightPadded(LeftPadded(Causal(), (0, 3, 7)), (13, 9, 10)),
    "prefixed_causal": Prefixed(Causal(), 4),
    "prefixed_full": Prefixed(Full(), 2),
    "prefixed_left": Prefixed(LeftPadded(PrefixLM((4, 2, 3)), (0, 3, 6)), 4),
    "prefixed_packed": Prefixed(Packed((((5, 2), (4, 3)), ((3, 3), (6, 2)), ((9, 0),))), 4),
}
COLUMNS = 13

HERE = [name for name in BACKENDS if name not in ("triton", "xformers")]
"""Triton's interpreter is slow and wrong in bf16: test_triton.py has what it can be tested for.
xformers has no kernel for a CPU: test_xformers.py tests its masks."""
ON_CPU = [name for name in BACKENDS if name != "xformers"]

# Query heads, key/value heads, head size, columns already cached.
SHAPES = [(2, 2, 5, 0), (6, 2, 16, 0), (3, 1, 7, 6), (4, 4, 8, 12)]

# Worst measured: fp32 2.3e-7 forward, 6.5e-7 backward (sdpa); bf16 5.2e-3 and 9.4e-3.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1.5e-2}


def draw(shape, dtype, device="cpu", columns=COLUMNS, rows=3):
    """Random q, k, v and the gradient of the output."""
    heads, kv_heads, size, offset = shape
    sizes = [(columns - offset, heads), (columns, kv_heads), (columns, kv_heads)]
    sizes.append(sizes[0])
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(rows, length, n, size, generator=generator).to(device, dtype)
        for length, n in sizes
    ]


def run_backend(name, spec, shape, q, k, v, d_out, coefficient=1.0):
    """Returns the output and the three gradients."""
    offset = shape[3]
    request = MaskRequest(spec, q.shape[0], q.shape[1], k.shape[1], offset, q.device, q.dtype)
    attend = prepare_attention(request, name)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves, Scaling(shape[2] ** -0.5, coefficient))
    return out, *torch.autograd.grad(out, leaves, d_out)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", HERE)
def test_backend_equals_definition(backend, mask, dtype, untraced_flex):
    for shape in SHAPES:
        tensors = draw(shape, dtype)
        visible = visible_matrix(MASKS[mask], 3, COLUMNS - shape[3], COLUMNS, shape[3])
        q, k, v, d_out = (x.double().numpy() for x in tensors)
        expected = attention(q, k, v, visible, d_out)
        actual = run_backend(backend, MASKS[mask], shape, *tensors)
        for what, a, e in zip(("out", "dq", "dk", "dv"), actual, expected, strict=True):
            assert a.dtype == dtype
            assert_relative(a, e, TOLERANCE[dtype], f"{backend} {mask} {shape} {what}")


@pytest.mark.parametrize("backend", ON_CPU)
def test_output_is_that_of_inference_when_no_gradient_is_wanted(backend):
    shape = SHAPES[1]
    q, k, v, d_out = draw(shape, torch.float32)
    with_grad = run_backend(backend, MASKS["left_prefix"], shape, q, k, v, d_out)[0]
    request = MaskRequest(MASKS["left_prefix"], 3, COLUMNS, COLUMNS, 0, q.device, q.dtype)
    with torch.no_grad():
        without = prepare_attention(request, backend)(q, k, v, Scaling(0.25))
    assert_relative(without, with_grad, 1e-6)  # measured below 3e-7


@pytest.mark.parametrize("coefficient", [3.0, 70.0])
@pytest.mark.parametrize("backend", ON_CPU)
def test_coefficient_cancels(backend, coefficient):
    shape = SHAPES[1]
    tensors = draw(shape, torch.float32)
    plain = run_backend("eager", MASKS["prefix"], shape, *tensors)
    scaled = run_backend(backend, MASKS["prefix"], shape, *tensors, coefficient)
    for a, e in zip(scaled, plain, strict=True):
        assert_relative(a, e, 1e-6)  # measured below 3e-7


def test_fp16_scores_survive_when_the_coefficient_makes_them_small():
    # q.k / sqrt(H) is 120000, beyond fp16's 65504; divided by 16 it fits.
    q = torch.full((1, 3, 1, 16), 173.2, dtype=torch.float16)
    v = torch.randn(1, 3, 1, 16).half()
    request = MaskRequest(Causal(), 1, 3, 3, 0, q.device, q.dtype)
    attend = prepare_attention(request, "eager")
    out = attend(q, q, v, Scaling(0.25, 16.0))
    running_mean = v.float().cumsum(1) / torch.arange(1, 4)[None, :, None, None]
    assert_relative(out, running_mean, 1e-3)  # measured 3.1e-4
    assert attend(q, q, v, Scaling(0.25, 1.0)).isnan().any()


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_dropout_keeps_the_expectation(backend):
    shape = (1, 1, 4, 0)
    q, k, v, _ = draw(shape, torch.float32)
    request = MaskRequest(Full(), 3, COLUMNS, COLUMNS, 0, q.device, q.dtype)
    attend = prepare_attention(request, backend, dropout=0.5)
    plain = attend(q, k, v, Scaling(0.5))
    mean = torch.stack([attend(q, k, v, Scaling(0.5), 0.5) for _ in range(400)]).mean(0)
    assert_relative(mean, plain, 0.1)  # a standard error of about 0.02; measured 0.036
    assert not torch.equal(attend(q, k, v, Scaling(0.5), 0.5), plain)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", ["flex", "triton", "xformers"])
def test_compiled_backend_equals_definition_on_cuda(backend, mask, dtype):
    shape = (6, 2, 16, 0)
    request = MaskRequest(Causal(), 3, COLUMNS, COLUMNS, 0, torch.device("cuda"), dtype)
    if backend == "xformers" and (reason := BACKENDS[backend].why_not(request, 0.0)):
        pytest.skip(reason)
    tensors = draw(shape, dtype, "cuda")
    visible = visible_matrix(MASKS[mask], 3, COLUMNS, COLUMNS)
    q, k, v, d_out = (x.cpu().double().numpy() for x in tensors)
    expected = attention(q, k, v, visible, d_out)
    actual = run_backend(backend, MASKS[mask], shape, *tensors)
    # flex's kernel multiplies fp32 with TF32's 10 bits unless told otherwise.
    tolerance = max(TOLERANCE[dtype], 2e-3)
    for what, a, e in zip(("out", "dq", "dk", "dv"), actual, expected, strict=True):
        assert_relative(a, e, tolerance, f"{backend} cuda {mask} {what}")
