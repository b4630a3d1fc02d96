"""How much memory a model takes to answer, known before the first of its weights is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from glm_core.checkpoint.device_memory import Budget, readable
from glm_core.model.choices import GeluForm, GenerationLayout, ScoreOrder
from glm_core.model.config import TransformerConfig
from glm_core.model.size import measure
from glm_core.quantize.layout import Layout

PROMPT = 2048
"""Columns that the working space is planned for at a time."""
LEAST_CONTEXT = 2048
"""Tokens below which a context that nobody asked for is not cut."""
CONTEXT_STEP = 256
HEADROOM = 0.05
"""Share of everything else, for the allocator's gaps and small tensors."""
STREAMED_LAYERS = 2
"""Layers on the device beside the resident ones: the one that computes and the one that arrives."""
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What decides how much memory a model takes."""

    dtype: torch.dtype
    layout: Layout | None
    """Of quantized matrices."""
    context: int
    """Tokens of prompt and answer that the KV cache holds."""
    resident: int
    """Layers that stay on the device; the others are streamed through it."""

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        if self.layout is None:
            return dtype
        groups = "" if self.layout.is_released else f" ({self.layout})"
        return f"{dtype} with int{self.layout.bits} matrices{groups}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on the device while a model answers one text."""

    choice: Choice
    num_layers: int
    weights: int
    """On the device, the space for streamed layers included."""
    kv_cache: int
    working: int
    """Of a forward over PROMPT columns."""
    offloaded: int
    """Weights of the streamed layers, which lie elsewhere."""

    @property
    def headroom(self) -> int:
        """What is left free."""
        return int(HEADROOM * (self.weights + self.kv_cache + self.working))

    @property
    def total(self) -> int:
        """Everything on the device."""
        return self.weights + self.kv_cache + self.working + self.headroom

    def parts(self) -> list[tuple[str, int, str]]:
        """Name, bytes and remark of each part."""
        context = f"context of {self.choice.context:,} tokens"
        prompt = f"a prompt of {min(self.choice.context, PROMPT):,} tokens"
        layers = ""
        if self.offloaded:
            layers = (
                f", {self.choice.resident} of {self.num_layers} layers; the others, "
                f"{readable(self.offloaded)}, are streamed"
            )
        return [
            ("weights", self.weights, f"{self.choice}{layers}"),
            ("KV cache", self.kv_cache, context),
            ("working space", self.working, prompt),
            ("headroom", self.headroom, f"{HEADROOM:.0%} of the above"),
        ]

    @property
    def is_small(self) -> bool:
        """Whether it deserves no more than a line."""
        return self.total < 10**9

    def line(self, title: str, budget: Budget | None) -> str:
        """The plan in one line."""
        of = ", ".join(f"{name} {readable(size)}" for name, size, _ in self.parts())
        return f"{title}: {readable(self.total)} {_out_of(budget)} ({of})".replace("  ", " ")

    def table(self, title: str, budget: Budget | None) -> str:
        """The plan with a line per part."""
        of = _out_of(budget)
        rows = [*self.parts(), ("total", self.total, of)]
        lines = [f"  {name:<14}{readable(size):>10}  {remark}" for name, size, remark in rows]
        return "\n".join([f"memory plan of {title}", *map(str.rstrip, lines)])


class Planner:
    """Plans for one model.

    Args:
        config: the model.
        name: what the user calls it.
    """

    def __init__(self, config: TransformerConfig, name: str) -> None:
        self.config = config
        self.name = name
        self._size = measure(config)

    def plan(self, choice: Choice) -> MemoryPlan:
        """Memory that `choice` takes."""
        element, streamed = (
            choice.dtype.itemsize,
            self.config.num_layers - choice.resident,
        )
        layer = self._size.layer.num_bytes(element, choice.layout)
        on_device = choice.resident + min(streamed, STREAMED_LAYERS)
        return MemoryPlan(
            choice=choice,
            num_layers=self.config.num_layers,
            weights=self._size.outside.num_bytes(element, choice.layout) + on_device * layer,
            kv_cache=self._kv_bytes_per_token(element) * choice.context,
            working=self._working_bytes(choice),
            offloaded=streamed * layer,
        )

    def choose(
        self,
        dtype: torch.dtype,
        layout: Layout | None,
        context: int | None,
        budget: Budget | None,
        may_offload: bool,
    ) -> MemoryPlan:
        """The plan to load by.

        Args:
            dtype: of the weights that are not quantized.
            layout: of quantized matrices.
            context: tokens to hold; None for the model's own, or as many as fit, LEAST_CONTEXT at
                least.
            budget: what may be used; None if nobody knows.
            may_offload: whether layers may be streamed through the device.

        Raises:
            ValueError: it does not fit; says what would.
        """
        longest = self._check_context(context)
        wanted = self.plan(Choice(dtype, layout, longest, self.config.num_layers))
        if budget is None or wanted.total <= budget.num_bytes:
            return wanted
        least = wanted if context else self._cut(wanted, min(longest, LEAST_CONTEXT))
        if least.total <= budget.num_bytes:
            return self._with_longest_context(least.choice, longest, budget)
        found = None
        if may_offload:
            found = self.offload(wanted.choice, budget) or self.offload(least.choice, budget)
        if found is None:
            raise ValueError(self._refusal(least, budget, may_offload))
        return found

    def offload(self, choice: Choice, budget: Budget) -> MemoryPlan | None:
        """The plan that keeps as many layers on the device as fit; None if not even none fit."""
        # all but one or two resident would take as much memory as all of them
        for resident in range(self.config.num_layers - STREAMED_LAYERS - 1, -1, -1):
            plan = self.plan(replace(choice, resident=resident))
            if plan.total <= budget.num_bytes:
                return plan
        return None

    def _check_context(self, context: int | None) -> int:
        longest = self.config.max_position_embeddings
        if context is not None and not 0 < context <= longest:
            raise ValueError(
                f"context is {context}: it must be between 1 and {longest}, "
                f"which is what {self.name} holds"
            )
        return context or longest

    def _cut(self, plan: MemoryPlan, context: int) -> MemoryPlan:
        return self.plan(replace(plan.choice, context=context))

    def _with_longest_context(
        self, choice: Choice, longest: int, budget: Budget, step: int = CONTEXT_STEP
    ) -> MemoryPlan:
        """`choice`, which fits, with as much context as fits too, in steps of `step` tokens."""
        plan = self.plan(choice)
        low, high = choice.context // step, longest // step
        while low < high:
            middle = (low + high + 1) // 2
            longer = self._cut(plan, middle * step)
            if longer.total <= budget.num_bytes:
                plan, low = longer, middle
            else:
                high = middle - 1
        return plan

    def _kv_bytes_per_token(self, element: int) -> int:
        config = self.config
        return 2 * element * config.num_blocks * config.num_kv_heads * config.head_dim

    def _working_bytes(self, choice: Choice) -> int:
        """What one block makes of a prompt.

        A prompt that is seen from both sides needs a mask of its own. Quantized matrices become
        numbers one at a time. Reading takes less: one tensor, while there is no KV cache yet.
        """
        config, element = self.config, choice.dtype.itemsize
        prompt = min(choice.context, PROMPT)
        attention = (4 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        forward = prompt * (
            element * (4 * config.hidden_size)
            + max(element * attention, self._feed_forward_bytes(element) * config.ffn_hidden_size)
        )
        if config.generation_layout != GenerationLayout.causal:
            forward += prompt * prompt * (element + 1)
        if config.reference_numerics and config.score_order != ScoreOrder.fused:
            forward += prompt * prompt * config.num_heads * (2 * 4 + element)  # scores in fp32
        forward += 4 * 4 * config.vocab_size  # logits in fp32, and the sampler's copies
        if choice.layout is not None:
            forward += element * self._size.largest_linear
        return forward

    def _feed_forward_bytes(self, element: int) -> int:
        """Bytes per column of the feed-forward's inside, for every one of its units."""
        if self.config.is_gated:
            return 4 * element  # two halves, the activated one, their product
        if self.config.gelu_form == GeluForm.quick:
            if self.config.reference_numerics:
                return 5 * element  # in steps
            return 4 * 4  # computed in fp32 where there are no compiled kernels
        return 2 * element

    def _refusal(self, least: MemoryPlan, budget: Budget, may_offload: bool) -> str:
        if may_offload:
            bare = self.plan(replace(least.choice, resident=0))
            needs = f"{readable(bare.total)} even if no layer stays on the device"
        else:
            of = ", ".join(f"{name} {readable(size)}" for name, size, _ in least.parts())
            needs = f"{readable(least.total)} ({of}) for {least.choice.context:,} tokens"
        ways = [
            f"{label} ({readable(plan.total)})" for label, plan in self._ways_out(least, budget)
        ]
        remedy = f"What fits: {'; '.join(ways[:_SHOWN])}" if ways else self._least(least.choice)
        return f"{self.name} in {least.choice} needs {needs}, but {budget.in_words()}. {remedy}"

    def _least(self, choice: Choice) -> str:
        """What to say when no setting makes it fit."""
        label, smallest = min(
            [("", choice), *_lighter(choice)],
            key=lambda variant: self.plan(variant[1]).total,
        )
        plan = self.plan(replace(smallest, context=1, resident=0))
        return (
            f"No setting makes it fit: the least is {readable(plan.total)}, with "
            f"{_joined(label, 'context=1')} and every layer offloaded. Free some memory, "
            "or use a larger device"
        )

    def _ways_out(self, least: MemoryPlan, budget: Budget) -> Iterator[tuple[str, MemoryPlan]]:
        """Settings that make it fit, the mildest change first."""
        variants = [("", least.choice), *_lighter(least.choice)]
        for label, choice in variants:
            if self.plan(choice).total <= budget.num_bytes:
                yield label, self.plan(choice)
        for label, choice in variants:
            shortest = replace(choice, context=min(choice.context, CONTEXT_STEP))
            if self.plan(shortest).total <= budget.num_bytes < self.plan(choice).total:
                plan = self._with_longest_context(shortest, choice.context, budget)
                yield _joined(label, f"context={plan.choice.context}"), plan
        for context in sorted({choice.context, LEAST_CONTEXT, CONTEXT_STEP}, reverse=True):
            offloaded = list(self._offloaded(variants, context, budget))
            yield from offloaded
            if offloaded:
                return
        for label, choice in variants:
            bare = replace(choice, context=1)
            if self.plan(bare).total <= budget.num_bytes:
                plan = self._with_longest_context(bare, CONTEXT_STEP, budget, step=1)
                yield _joined(label, f"context={plan.choice.context}"), plan

    def _offloaded(
        self, variants: list[tuple[str, Choice]], context: int, budget: Budget
    ) -> Iterator[tuple[str, MemoryPlan]]:
        """Those of the variants that fit only with layers offloaded."""
        for label, variant in variants:
            if context > variant.context:
                continue
            shorter = f"context={context}" if context < variant.context else ""
            choice = replace(variant, context=context)
            plan = self.offload(choice, budget)
            if plan and self.plan(choice).total > budget.num_bytes:
                kilobytes = budget.num_bytes // 1000
                size = f"{kilobytes // 1000}MB" if kilobytes >= 10_000 else f"{kilobytes}kB"
                limit = (
                    f"max_memory={size} keeps {plan.choice.resident} of {self.config.num_layers} "
                    "layers on the device"
                )
                yield _joined(label, shorter, limit), plan


def _out_of(budget: Budget | None) -> str:
    return "" if budget is None else f"of {readable(budget.num_bytes)} {budget.source}"


def _lighter(choice: Choice) -> list[tuple[str, Choice]]:
    """Choices of dtype and bits that take less than `choice`, each with what to set."""
    narrow = replace(choice, dtype=torch.bfloat16) if choice.dtype.itemsize > 2 else None
    found = [("dtype=bfloat16", narrow)] if narrow else []
    stored = 16 if choice.layout is None else choice.layout.bits
    for bits in (8, 4):
        if bits < stored:
            found.append((f"quantize=int{bits}", replace(choice, layout=Layout(bits))))
    if narrow and stored > 4:
        found.append(("dtype=bfloat16, quantize=int4", replace(narrow, layout=Layout(4))))
    return found


def _joined(*settings: str) -> str:
    return ", ".join(filter(None, settings))
