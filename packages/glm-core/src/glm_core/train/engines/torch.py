"""The engine for one process and one device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from glm_core.checkpoint.matching import mismatch
from glm_core.train.blocks import compile_blocks, recompute_blocks
from glm_core.train.cpu_memory import peak_resident_bytes, tune_cpu_memory
from glm_core.train.ema import EMA
from glm_core.train.engines.protocol import State, Update
from glm_core.train.optim import OptimConfig, build_optimizer
from glm_core.train.precision import (
    LossScaler,
    autocast,
    resolve_device,
    resolve_precision,
)
from glm_core.train.task import LossSum, Task
from glm_core.train.trainer_config import Precision, TrainerConfig


class TorchEngine:
    """Gradients of sums, one fused optimizer pass, no wait for the device of its own.

    Gradients are those of the *summed* loss. The division by the number of targets, the loss scale
    and the clipping are one scalar that the fused optimizer kernel divides by while it reads the
    gradient, so an update touches each gradient twice (norm, step) and not four times.
    """

    def __init__(self, task: Task[Any], optim: OptimConfig, config: TrainerConfig) -> None:
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device)
        if self.device.type == "cpu":
            tune_cpu_memory()
        self.model: nn.Module = task.build_model().to(self.device).train()
        self._task = task
        self._grad_clip = config.grad_clip
        if config.compile:
            compile_blocks(self.model)
        if config.activation_checkpointing:
            recompute_blocks(self.model)
        self._optimizer = build_optimizer(self.model, optim)
        self._names = {id(p): name for name, p in self.model.named_parameters()}
        self._scaler = LossScaler(self.device, enabled=self.precision is Precision.fp16)
        self._ema = EMA(self.model, config.ema_decay) if config.ema_decay else None
        self._weight = torch.zeros((), device=self.device)

    def forward_backward(self, batch: Any) -> LossSum:
        """Add the gradient of one microbatch."""
        with autocast(self.precision, self.device):
            loss = self._task.loss(self.model, batch)
        scaled = loss.total * self._scaler.scale if self._scaler.enabled else loss.total
        scaled.backward()  # type: ignore[no-untyped-call]
        weight = loss.weight.detach().float()
        self._weight = self._weight + weight
        metrics = {name: value.detach() for name, value in loss.metrics.items()}
        return LossSum(loss.total.detach(), weight, metrics)

    @torch.no_grad()
    def update(self, learning_rate: float, step: int) -> Update:
        """One AdamW step on the mean gradient; a non-finite one leaves the weights alone."""
        gradients = [p.grad for g in self._optimizer.param_groups for p in g["params"]]
        present = [gradient for gradient in gradients if gradient is not None]
        # a step without a single target has a zero gradient, not 0/0
        divisor = self._weight.clamp(min=torch.finfo(torch.float32).tiny) * self._scaler.scale
        grad_norm = torch.nn.utils.get_total_norm(present) / divisor
        skipped = 1.0 - torch.isfinite(grad_norm).float()
        if self._grad_clip:
            divisor = divisor * (grad_norm / self._grad_clip).clamp(min=1.0)
        self._optimizer_step(learning_rate, divisor, skipped)
        self._scaler.update(skipped)
        if self._ema is not None:
            self._ema.update(step)
        self._weight = torch.zeros((), device=self.device)
        return Update(grad_norm, skipped)

    def _optimizer_step(self, learning_rate: float, divisor: Tensor, skipped: Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # The two attributes through which torch.amp.GradScaler speaks to fused optimizers.
        self._optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def evaluate(self, batch: Any) -> LossSum:
        """The loss in evaluation mode, without gradients."""
        self.model.eval()
        try:
            with autocast(self.precision, self.device):
                return self._task.loss(self.model, batch)
        finally:
            self.model.train()

    def averaged_weights(self) -> AbstractContextManager[None]:
        """The EMA weights, or the weights themselves."""
        return nullcontext() if self._ema is None else self._ema.applied()

    def state(self) -> State:
        """Model, optimizer (with the loss scale) and EMA as live tensors."""
        optimizer: dict[str, Tensor] = {}
        for parameter, moments in self._optimizer.state.items():
            for moment, value in moments.items():
                optimizer[f"{moment}.{self._names[id(parameter)]}"] = value
        for name, value in self._scaler.state_dict().items():
            optimizer[f"loss_scaler.{name}"] = value
        state = {"model": self.model.state_dict(), "optimizer": optimizer}
        if self._ema is not None:
            state["ema"] = self._ema.state_dict()
        return state

    def load_state(self, state: State) -> None:
        """Restore `state()`; ValueError names what does not fit."""
        fault = mismatch(self.model.state_dict(), state["model"])
        if fault:
            raise ValueError(f"model.safetensors: {fault}")
        self.model.load_state_dict(dict(state["model"]))
        self._load_optimizer(state["optimizer"])
        if self._ema is not None:
            # a run that turns the EMA on later starts it from the weights it has
            weights = {n: p.detach() for n, p in self.model.named_parameters()}
            self._ema.load_state_dict(state.get("ema", weights))

    def _load_optimizer(self, state: Mapping[str, Tensor]) -> None:
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                name = self._names[id(parameter)]
                if f"step.{name}" not in state:  # never had a gradient
                    continue
                moments = {
                    moment: state[f"{moment}.{name}"].to(self.device)
                    for moment in ("step", "exp_avg", "exp_avg_sq")
                    if f"{moment}.{name}" in state
                }
                if moments["exp_avg"].shape != parameter.shape:
                    raise ValueError(
                        f"the optimizer state of {name} has shape"
                        f" {list(moments['exp_avg'].shape)}, the model {list(parameter.shape)}"
                    )
                self._optimizer.state[parameter] = moments
        prefix = "loss_scaler."
        scaler = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        self._scaler.load_state_dict(scaler)

    def peak_memory(self) -> int:
        """Peak bytes: allocated by torch on CUDA, resident on CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_resident_bytes()
