from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from glm_core.train.muon import MuonAdamW, orthogonalise
from glm_core.train.optim import OptimConfig, OptimizerKind, build_optimizer


@pytest.mark.parametrize("shape", [(48, 48), (37, 101), (101, 37), (1, 8)])
def test_singular_values_are_near_one_when_orthogonalised(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    values = np.linalg.svd(orthogonalise(matrix).numpy(), compute_uv=False)
    assert values.min() > 0.3 and values.max() < 1.3  # seen: 0.69 to 1.20
    u, _, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    along = np.diag(u.T @ orthogonalise(matrix).numpy() @ v.T)
    np.testing.assert_allclose(np.sort(along), np.sort(values), atol=1e-4)  # seen: 2e-6


def test_matrices_move_as_torchs_muon_moves_them_when_stepped():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(24, 40, bias=False), nn.Linear(24, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    bias = nn.Parameter(torch.zeros(3))
    groups = [{"params": [bias], "weight_decay": 0.0}]
    optimizer = MuonAdamW([ours.weight], groups, weight_decay=0.1, lr=0.02, fused=True)
    oracle = torch.optim.Muon(
        theirs.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        x = torch.randn(16, 24, generator=torch.Generator().manual_seed(step))
        for model, one in ((ours, optimizer), (theirs, oracle)):
            one.zero_grad()
            (model(x) ** 2).mean().backward()
            one.step()
    # torch iterates in bf16, we in fp32 on a CPU; seen: 1.5e-3 of movements of about 0.1
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-2, rtol=0)


def test_gradients_are_divided_when_scaled():
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.load_state_dict(first.state_dict())
    for model, factor in ((first, 1.0), (second, 64.0)):
        bias = nn.Parameter(torch.zeros(2))
        optimizer = MuonAdamW([model.weight], [{"params": [bias]}], weight_decay=0.0, lr=0.1)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(factor), torch.zeros(())
        model.weight.grad = factor * torch.arange(64.0).view(8, 8).sin()
        optimizer.step()
    torch.testing.assert_close(first.weight, second.weight)


def test_nothing_moves_when_a_step_is_skipped():
    matrix, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(2))
    optimizer = MuonAdamW([matrix], [{"params": [bias]}], weight_decay=0.1, lr=0.1, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.ones(())
    matrix.grad, bias.grad = torch.full((4, 4), torch.nan), torch.full((2,), torch.nan)
    optimizer.step()
    assert torch.equal(matrix, torch.ones(4, 4)) and torch.equal(bias, torch.ones(2))
    assert torch.equal(optimizer.state[matrix]["exp_avg"], torch.zeros(4, 4))


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.head = nn.Linear(4, 10)


def test_only_matrices_of_the_blocks_are_moved_by_muon_when_built():
    model = _Model()
    optimizer = build_optimizer(model, OptimConfig(optimizer=OptimizerKind.muon))
    assert isinstance(optimizer, MuonAdamW)
    *adamw, muon = optimizer.param_groups
    assert [id(one) for one in muon["params"]] == [id(model.layers[0].weight)]
    moved = {id(one) for group in adamw for one in group["params"]}
    assert moved == {id(one) for one in model.parameters()} - {id(model.layers[0].weight)}


def test_adamw_alone_is_built_when_muon_is_not_asked_for():
    assert type(build_optimizer(_Model(), OptimConfig())) is torch.optim.AdamW
