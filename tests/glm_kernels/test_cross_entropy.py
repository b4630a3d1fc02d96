"""fused_linear_cross_entropy against float64 numpy, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

import glm_kernels
from glm_kernels import use_backend

BACKENDS = ["reference", "torch"]


def oracle(hidden, weight, bias, labels):
    """Return the loss sum and its gradients by hidden, weight and bias."""
    logits = hidden @ weight.T + bias
    kept = labels != -100
    rows, wanted = np.flatnonzero(kept), labels[kept]
    grad = np.where(kept[:, None], np.exp(logits - logsumexp(logits, -1, keepdims=True)), 0)
    grad[rows, wanted] -= 1
    loss = (logsumexp(logits[kept], -1) - logits[rows, wanted]).sum()
    return loss, grad @ weight, grad.T @ hidden, grad.sum(0)


@pytest.fixture
def problem(random):
    """Return a function that draws hidden, weight, bias and labels, some of them ignored.

    The labels favour the likely words, as those of a trained model do.
    """

    def draw(rows=123, size=77, vocab=1001, dtype=torch.float32, scale=1.0):
        hidden = random(rows, size, dtype=dtype)
        weight = random(vocab, size, dtype=dtype, scale=scale / size**0.5)
        bias = random(vocab, dtype=dtype)
        likely = (hidden.float() @ weight.float().T + bias.float()).argmax(-1)
        generator = torch.Generator().manual_seed(5)
        labels = torch.randint(vocab, (rows,), generator=generator)
        labels = labels.where(torch.rand(rows, generator=generator) < 0.4, likely)
        labels[::5] = -100
        return hidden, weight, bias, labels

    return draw


def relative(actual, expected):
    """Largest error relative to the largest expected value."""
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))


def run(hidden, weight, bias, labels, factor=1.0, autocast=False, chunk_size=50):
    """Return the loss and its gradients times `factor`, in float64 numpy."""
    leaves = [tensor.detach().requires_grad_() for tensor in (hidden, weight, bias)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = glm_kernels.fused_linear_cross_entropy(
            *leaves[:2], labels, bias=leaves[2], chunk_size=chunk_size
        )
    grads = torch.autograd.grad(loss * factor, leaves)
    assert [grad.dtype for grad in grads] == [leaf.dtype for leaf in leaves]
    assert loss.dtype == torch.promote_types(hidden.dtype, torch.float32)
    return [tensor.detach().double().numpy() for tensor in (loss, *grads)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk_size", [1, 7, 50, 1000, None])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_loss_and_gradients_agree_when_compared_with_numpy(problem, backend, chunk_size, scale):
    hidden, weight, bias, labels = problem(scale=scale)
    with use_backend(backend):
        ours = run(hidden, weight, bias, labels, 0.37, chunk_size=chunk_size)
    arrays = [tensor.double().numpy() for tensor in (hidden, weight, bias)]
    loss, *grads = oracle(*arrays, labels.numpy())
    assert relative(ours[0], loss) < 1e-6  # measured 2.4e-7
    for actual, expected in zip(ours[1:], grads, strict=True):
        assert relative(actual, expected * 0.37) < 5e-6  # measured 1.7e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_right_when_products_are_bf16(problem, backend, scale, dtype):
    hidden, weight, bias, labels = problem(rows=500, scale=scale, dtype=dtype)
    with use_backend(backend):
        ours = run(hidden, weight, bias, labels, 0.37, autocast=dtype == torch.float32)
    arrays = [tensor.double().numpy() for tensor in (hidden, weight, bias)]
    loss, *grads = oracle(*arrays, labels.numpy())
    # bf16 logits are off by up to 2^-9 of their size (6 here, 30 at scale 6): the reference is
    # as far from the truth as the chunked op. Measured loss 9.7e-5, gradients 6.0e-3 and 2.3e-2.
    assert relative(ours[0], loss) < 3e-4
    for actual, expected in zip(ours[1:], grads, strict=True):
        assert relative(actual, expected * 0.37) < (1e-2 if scale == 1 else 4e-2)


def test_confident_rows_keep_their_gradient_when_products_are_bf16():
    # p = 1 - 2.5e-4 rounds to 1 in bf16, which would leave the label no gradient at all
    hidden = torch.eye(4, dtype=torch.bfloat16).requires_grad_()
    weight = (8.25 * torch.eye(4)).to(torch.bfloat16).requires_grad_()
    labels = torch.arange(4)
    loss = glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)
    (grad,) = torch.autograd.grad(loss, weight)
    others = 3 * np.exp(-8.25) / (1 + 3 * np.exp(-8.25))
    assert loss.item() == pytest.approx(-4 * np.log1p(-others), rel=5e-3)  # measured 1.2e-3
    np.testing.assert_allclose(np.diag(grad.float()), -others, rtol=5e-3)  # measured 2.0e-3


def test_loss_is_right_when_probabilities_are_below_the_normal_range_of_fp16(problem):
    hidden, weight, _, labels = problem(scale=3.0)
    hidden, weight = hidden.half(), weight.half()
    loss = glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)
    arrays = [tensor.double().numpy() for tensor in (hidden, weight)]
    expected, *_ = oracle(*arrays, 0, labels.numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-4)  # measured 1.3e-5


def test_loss_is_finite_when_the_label_is_hopeless():
    hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[200.0, 0], [0.0, 0], [-300.0, 0]])
    for label, expected in ((1, 200.0), (2, 500.0)):
        for dtype in (torch.float32, torch.bfloat16):
            loss = glm_kernels.fused_linear_cross_entropy(
                hidden.to(dtype), weight.to(dtype), torch.tensor([label])
            )
            assert loss.item() == expected


@pytest.mark.parametrize("chunk_size", [2, 100])
def test_backward_is_exact_when_checked_by_differences(problem, chunk_size):
    hidden, weight, bias, labels = problem(9, 5, 7, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda h, w, b: glm_kernels.fused_linear_cross_entropy(
            h, w, labels, bias=b, chunk_size=chunk_size
        ),
        leaves,
    )


def test_gradients_add_up_when_the_loss_is_accumulated_over_microbatches(problem):
    hidden, weight, _, labels = problem(rows=120)
    weight = weight.requires_grad_()
    whole = glm_kernels.fused_linear_cross_entropy(hidden, weight, labels) / 96
    (expected,) = torch.autograd.grad(whole, weight)
    for part in (slice(0, 50), slice(50, 120)):
        loss = glm_kernels.fused_linear_cross_entropy(hidden[part], weight, labels[part])
        (loss / 96).backward()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-7)  # measured 3e-8


def test_gradients_are_the_same_when_backward_runs_twice(problem):
    hidden, weight, _, labels = problem()
    weight = weight.requires_grad_()
    loss = glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)
    (first,) = torch.autograd.grad(loss * 0.5, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss * 0.25, weight)
    torch.testing.assert_close(first, second * 2, rtol=0, atol=0)


def test_tied_weight_gets_both_gradients_when_it_is_also_the_embedding(problem):
    _, weight, _, labels = problem()
    ids = torch.arange(123) % 50
    grads = []
    for backend in BACKENDS:
        table = weight.clone().requires_grad_()
        with use_backend(backend):
            hidden = torch.tanh(torch.nn.functional.embedding(ids, table))
            loss = glm_kernels.fused_linear_cross_entropy(hidden, table, labels, chunk_size=40)
        grads.append(torch.autograd.grad(loss, table)[0])
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)  # measured 1.9e-6


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_frozen_input_gets_no_gradient_when_the_other_is_trained(problem, frozen):
    hidden, weight, _, labels = problem()
    trained = weight if frozen == "hidden" else hidden
    trained.requires_grad_()
    glm_kernels.fused_linear_cross_entropy(hidden, weight, labels).backward()
    assert trained.grad is not None
    assert (hidden if frozen == "hidden" else weight).grad is None


@pytest.mark.parametrize("rows", [0, 6])
def test_loss_is_zero_when_every_row_is_ignored(rows):
    hidden, weight = torch.ones(rows, 4, requires_grad=True), torch.ones(9, 4, requires_grad=True)
    labels = torch.full((rows,), -100)
    loss = glm_kernels.fused_linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None and not hidden.grad.any()
    assert weight.grad is not None and not weight.grad.any()


def test_no_tensor_holds_all_logits_when_rows_are_many(problem):
    hidden, weight, _, labels = problem(rows=400, vocab=503)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.numel())
            return out

    with Watch():
        loss = glm_kernels.fused_linear_cross_entropy(
            hidden, weight.requires_grad_(), labels, chunk_size=16
        )
        loss.backward()
    assert max(sizes) == weight.numel()


@pytest.mark.parametrize(
    ("hidden", "weight", "labels", "options", "message"),
    [
        ((2, 3, 4), (9, 4), (6,), {}, r"hidden has shape \(2, 3, 4\) .* flatten the batch first"),
        ((6, 4), (9, 5), (6,), {}, r"hidden has shape \(6, 4\) and weight \(9, 5\)"),
        ((6, 4), (9, 4), (2, 3), {}, r"labels has shape \(2, 3\): it must be \[6\]"),
        ((6, 4), (9, 4), (6,), {"bias": torch.zeros(4)}, r"bias has shape \(4,\): .* be \[9\]"),
        ((6, 4), (9, 4), (6,), {"chunk_size": 0}, "chunk_size=0 must be at least 1"),
    ],
)
def test_shapes_are_refused_when_they_do_not_fit(hidden, weight, labels, options, message):
    with pytest.raises(ValueError, match=message):
        glm_kernels.fused_linear_cross_entropy(
            torch.zeros(hidden),
            torch.zeros(weight),
            torch.zeros(labels, dtype=torch.long),
            **options,
        )


@pytest.mark.parametrize("label", [9, -1])
def test_labels_are_refused_when_outside_the_vocabulary(label):
    labels = torch.tensor([1, label, -100])
    with pytest.raises(ValueError, match=f"labels has {label}, outside .* 9 rows"):
        glm_kernels.fused_linear_cross_entropy(torch.zeros(3, 4), torch.zeros(9, 4), labels)
