"""Rotary embedding against transformers' code and complex numbers in float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import glm_kernels
from glm_kernels import use_backend

THETA = 10000.0

# Worst errors measured, all backends: fp32 1.2e-7, bf16 3.9e-3, out and grad alike.
TOLERANCES = {torch.float32: 5e-7, torch.bfloat16: 5e-3}
BACKENDS = ["reference", "torch", "cpu"]


def turn(x, tables, interleaved, sign=1):
    """Multiply pairs of dims by complex numbers; sign -1 turns back, which is the gradient."""
    cos, sin = (table.double().numpy()[..., None, :] for table in tables)
    rotary_dim = 2 * cos.shape[-1]
    out = x.copy()
    if interleaved:
        first, second = slice(0, rotary_dim, 2), slice(1, rotary_dim, 2)
    else:
        first, second = slice(0, rotary_dim // 2), slice(rotary_dim // 2, rotary_dim)
    turned = (x[..., first] + 1j * x[..., second]) * (cos + 1j * sign * sin)
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("shape", "rotary_dim"), [((5, 123, 7, 78), 38), ((2, 9, 3, 64), 64), ((1, 1, 1, 2), 2)]
)
def test_rope_agrees_when_compared_with_complex_numbers(
    step, random, worst, backend, dtype, interleaved, shape, rotary_dim
):
    positions = torch.randint(0, 300, shape[:2], generator=torch.Generator().manual_seed(2))
    tables = glm_kernels.rope_tables(positions, rotary_dim, THETA)
    with use_backend(backend):
        ours = step(
            lambda x: glm_kernels.apply_rope(x, *tables, interleaved), random(*shape, dtype=dtype)
        )
    assert ours.dtype == dtype
    assert worst(ours.out, turn(ours.inputs[0], tables, interleaved)) < TOLERANCES[dtype]
    assert worst(ours.grads[0], turn(ours.grad_out, tables, interleaved, -1)) < TOLERANCES[dtype]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rope_halves_agree_when_compared_with_llama(random, worst, backend):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q, k = random(2, 33, 4, 16), random(2, 33, 4, 16)
    cos, sin = glm_kernels.rope_tables(torch.arange(33)[None], 16, THETA)
    doubled = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
    theirs, _ = llama.apply_rotary_pos_emb(q, k, *doubled, unsqueeze_dim=2)
    with use_backend(backend):
        ours = glm_kernels.apply_rope(q, cos, sin, False)
    # measured 1.2e-7: the order of one product and one sum
    assert worst(ours.double().numpy(), theirs.double().numpy()) < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_rope_pairs_agree_when_compared_with_glm(random, worst, backend):
    glm = pytest.importorskip("transformers.models.glm.modeling_glm")
    q, k = random(2, 33, 4, 16), random(2, 33, 4, 16)
    cos, sin = glm_kernels.rope_tables(torch.arange(33)[None], 8, THETA)
    doubled = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
    theirs, _ = glm.apply_rotary_pos_emb(q, k, *doubled, unsqueeze_dim=2)
    with use_backend(backend):
        ours = glm_kernels.apply_rope(q, cos, sin, True)
    # measured 1.2e-7
    assert worst(ours.double().numpy(), theirs.double().numpy()) < 1e-6


def test_rope_tables_agree_when_compared_with_llama():
    llama = pytest.importorskip("transformers.models.llama")
    config = llama.LlamaConfig(hidden_size=64, num_attention_heads=2, rope_theta=THETA)
    rotary = llama.modeling_llama.LlamaRotaryEmbedding(config)
    positions = torch.arange(2048)[None]
    theirs_cos, theirs_sin = rotary(torch.zeros(1), positions)
    cos, sin = glm_kernels.rope_tables(positions, 32, THETA)
    assert torch.equal(cos, theirs_cos[..., :16]) and torch.equal(sin, theirs_sin[..., :16])


def test_rope_tables_agree_when_compared_with_numpy():
    positions = np.arange(2048)
    angles = positions[:, None] * THETA ** (-np.arange(0, 38, 2) / 38)
    cos, sin = glm_kernels.rope_tables(torch.from_numpy(positions), 38, THETA)
    # fp32 frequencies put the angle of position 2047 off by 2^-24 of it: measured 1.1e-4
    assert np.abs(cos.numpy() - np.cos(angles)).max() < 5e-4
    assert np.abs(sin.numpy() - np.sin(angles)).max() < 5e-4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rope_2d_agrees_when_compared_with_complex_numbers(step, random, worst, backend, dtype):
    shape = (3, 41, 5, 24)
    generator = torch.Generator().manual_seed(3)
    positions, blocks = torch.randint(0, 60, (2, *shape[:2]), generator=generator)
    tables = (
        *glm_kernels.rope_tables(positions, 12, THETA),
        *glm_kernels.rope_tables(blocks, 12, THETA),
    )
    with use_backend(backend):
        ours = step(lambda x: glm_kernels.apply_rope_2d(x, *tables), random(*shape, dtype=dtype))

    def both(x, sign):
        first = turn(x[..., :12], tables[:2], False, sign)
        return np.concatenate((first, turn(x[..., 12:], tables[2:], False, sign)), -1)

    assert worst(ours.out, both(ours.inputs[0], 1)) < TOLERANCES[dtype]
    assert worst(ours.grads[0], both(ours.grad_out, -1)) < TOLERANCES[dtype]


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_takes_views_when_heads_come_from_one_projection(random, interleaved):
    qkv = random(2, 7, 3 * 4 * 8 + 1)[..., 1:]  # an odd offset, odd strides
    x = qkv[..., 32:64].unflatten(-1, (4, 8))
    cos, sin = glm_kernels.rope_tables(torch.arange(7), 4, THETA)
    with use_backend("cpu"):
        ours = glm_kernels.apply_rope(x, cos, sin, interleaved)
    with use_backend("reference"):
        theirs = glm_kernels.apply_rope(x, cos, sin, interleaved)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # measured 2.4e-7


def test_rope_gives_table_gradients_when_they_are_wanted(random):
    x = random(1, 3, 2, 4)
    cos, sin = (table.requires_grad_() for table in (random(1, 3, 2), random(1, 3, 2)))
    for interleaved in (False, True):
        out = glm_kernels.apply_rope(x, cos, sin, interleaved)
        assert all(grad is not None for grad in torch.autograd.grad(out.sum(), (cos, sin)))


@pytest.mark.parametrize("rotary_dim", [0, 7, -2])
def test_rope_tables_refuse_when_dims_do_not_pair(rotary_dim):
    with pytest.raises(ValueError, match=f"rotary_dim={rotary_dim} must be positive and even"):
        glm_kernels.rope_tables(torch.arange(3), rotary_dim, THETA)
