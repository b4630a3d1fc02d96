"""Memory plans against published figures, and against what they must add up to."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch.profiler import profile

from glm_core.attention import Causal, PrefixLM
from glm_core.checkpoint.device_memory import MAX_MEMORY, Budget, readable
from glm_core.checkpoint.memory_plan import Choice, MemoryPlan, Planner
from glm_core.infer.kv_cache import KVCache
from glm_core.model import Transformer
from glm_core.model.choices import GenerationLayout
from glm_core.model.presets import preset
from glm_core.quantize import Layout
from glm_core.testing import TINY_FAMILIES, tiny_config

GB = 10**9
PLANNER = Planner(preset("glm-4-9b-chat"), "glm-4-9b")
LONGEST, LAYERS = 131072, 40
FULL = PLANNER.plan(Choice(torch.bfloat16, None, LONGEST, LAYERS))


def choose(num_bytes: int, may_offload: bool = False, context: int | None = None) -> MemoryPlan:
    budget = Budget(num_bytes, "max_memory" if may_offload else "free on cuda")
    return PLANNER.choose(torch.bfloat16, None, context, budget, may_offload)


def with_resident(resident: int, context: int = LONGEST) -> MemoryPlan:
    return PLANNER.plan(Choice(torch.bfloat16, None, context, resident))


def test_weights_and_cache_are_those_of_the_model_when_it_is_built() -> None:
    config = tiny_config("glm-4-9b", num_layers=3)
    plan = Planner(config, "tiny").plan(Choice(torch.float32, None, 48, 3))
    assert plan.weights == sum(
        4 * parameter.numel() for parameter in Transformer(config).parameters()
    )
    cache = KVCache.for_model(config, batch=1, max_len=48)
    assert plan.kv_cache == sum(4 * tensor.numel() for tensor in (*cache.keys, *cache.values))
    assert plan.total == sum(size for _, size, _ in plan.parts())


@pytest.mark.parametrize(
    ("name", "bits", "context", "published"),
    [
        # GPU memory in GB that the models' READMEs give: ChatGLM-6B in the first turns of a chat,
        # ChatGLM2-6B with 8192 tokens written
        ("chatglm-6b", None, 512, 13.0),
        ("chatglm-6b", 4, 512, 6.0),
        ("chatglm2-6b", None, 8192, 12.8),
        ("chatglm2-6b", 8, 8192, 8.1),
        ("chatglm2-6b", 4, 8192, 5.1),
    ],
)
def test_plan_is_near_published_figures_when_model_is_released(
    name: str, bits: int | None, context: int, published: float
) -> None:
    planner = Planner(preset(name), name)
    total = planner.plan(
        Choice(torch.float16, bits and Layout(bits), context, planner.config.num_layers)
    ).total
    # 1.02, 0.76 (the original keeps the tied head twice, 1.1 GB); 1.06, 0.97, 0.95
    assert 0.7 < total / GB / published < 1.1


def peak_of_forward(model: Transformer, columns: int) -> int:
    """Most bytes that a prompt takes at once beside weights and cache, as torch's allocator saw."""
    config, dtype = model.config, model.word_embeddings.weight.dtype
    cache = KVCache.for_model(config, 1, columns, dtype)
    is_causal = config.generation_layout == GenerationLayout.causal
    mask = Causal() if is_causal else PrefixLM((columns - 1,))
    ids = torch.randint(config.vocab_size, (1, columns))
    with torch.inference_mode(), profile(profile_memory=True) as profiled:
        model.logits(model(ids, None, mask, cache)[:, -1])
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    memory = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in memory))


@pytest.mark.parametrize("reference_numerics", [False, True])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_working_space_is_what_a_prompt_takes_when_measured(
    family: str, reference_numerics: bool
) -> None:
    config = tiny_config(
        family,
        num_heads=8,
        ffn_hidden_size=256,
        max_position_embeddings=512,
        reference_numerics=reference_numerics,
    )
    plan = Planner(config, family).plan(Choice(torch.bfloat16, None, 512, 2))
    ratio = plan.working / peak_of_forward(Transformer(config).bfloat16().eval(), 512)
    # Measured 0.98 to 1.2; GLM in its reference order 1.6, whose scores are of the model's dtype;
    # CodeGeeX 2.2 to 2.6, whose gelu is planned in fp32, as PyTorch computes it where nothing is
    # compiled.
    assert 0.95 < ratio < 2.7


def test_everything_stays_when_it_fits() -> None:
    assert choose(FULL.total) == FULL
    assert PLANNER.choose(torch.bfloat16, None, None, None, may_offload=False) == FULL


def test_context_is_as_long_as_fits_when_none_is_asked_for() -> None:
    plan = choose(FULL.total - 1)
    assert plan.choice.context == LONGEST - 256 and plan.offloaded == 0
    least = with_resident(LAYERS, context=2048)
    assert choose(least.total) == least


def test_most_layers_stay_when_memory_is_limited() -> None:
    needed = with_resident(12).total
    plan = choose(needed, may_offload=True, context=LONGEST)
    assert (plan.choice.resident, plan.choice.context) == (12, LONGEST)
    # the 26 layers that have no place on the device, and the two that have none of their own
    assert plan.offloaded == (FULL.weights - plan.weights) * 28 // 26
    assert choose(needed - 1, may_offload=True, context=LONGEST).choice.resident == 11


def test_context_is_cut_last_when_layers_can_be_streamed() -> None:
    none_stay = with_resident(0)
    assert choose(none_stay.total, may_offload=True) == none_stay
    shorter = choose(none_stay.total - 1, may_offload=True).choice
    assert shorter.context == 2048 and shorter.resident > 0


def refusal(num_bytes: int, **options: bool | int) -> str:
    with pytest.raises(ValueError) as caught:
        choose(num_bytes, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_refusal_offers_only_what_fits_when_it_does_not() -> None:
    message = refusal(14 * GB, context=LONGEST)
    assert message.startswith(f"glm-4-9b in bfloat16 needs {readable(FULL.total)} (weights 18.8 GB")
    assert "but only 14.0 GB are free on cuda. What fits: quantize=int4 (" in message
    sizes = [float(size) for size in re.findall(r"\((\d+\.\d) GB\)", message)]
    assert len(sizes) > 1 and max(sizes) <= 14.0


@pytest.mark.parametrize("num_gb", [6, 10, 14, 20, 24])
def test_offers_fit_when_they_are_taken(num_gb: int) -> None:
    budget = Budget(num_gb * GB, "free on cuda")
    with pytest.raises(ValueError, match="What fits: ") as caught:
        PLANNER.choose(torch.bfloat16, None, LONGEST, budget, may_offload=False)
    offers = str(caught.value).partition("What fits: ")[2].split("; ")
    for offer in offers:
        settings = dict(re.findall(r"(\w+)=(\w+)", offer))
        layout = {"int8": Layout(8), "int4": Layout(4)}.get(settings.get("quantize", ""))
        context = int(settings.get("context", LONGEST))
        plan = PLANNER.choose(
            torch.bfloat16, layout, context, budget, may_offload="max_memory" in settings
        )
        assert f"({readable(plan.total)})" in offer
        assert f"keeps {plan.choice.resident} of 40" in offer or plan.choice.resident == LAYERS


def test_lighter_dtype_is_offered_when_weights_are_float32() -> None:
    budget = Budget(24 * GB, "free on cpu")
    with pytest.raises(ValueError, match=r"What fits: dtype=bfloat16 \(.*; quantize=int8 \("):
        PLANNER.choose(torch.float32, None, None, budget, may_offload=False)


def test_refusal_names_the_least_when_nothing_fits() -> None:
    message = refusal(GB // 2, may_offload=True)
    assert "even if no layer stays on the device, but max_memory is 500.0 MB. No set" in message
    least = PLANNER.plan(Choice(torch.bfloat16, Layout(4), 1, 0)).total
    assert f"the least is {readable(least)}, with quantize=int4, context=1 and" in message


def test_short_context_is_offered_when_no_longer_one_fits() -> None:
    planner = Planner(tiny_config("chatglm2-6b", max_position_embeddings=512), "tiny")
    budget = Budget(planner.plan(Choice(torch.bfloat16, Layout(4), 9, 2)).total, MAX_MEMORY)
    with pytest.raises(ValueError) as caught:
        planner.choose(torch.bfloat16, None, None, budget, may_offload=False)
    message = str(caught.value)
    assert "What fits: " in message and "quantize=int4, context=9 (" in message


@pytest.mark.parametrize("context", [0, -1, 131073])
def test_context_is_refused_when_the_model_does_not_hold_it(context: int) -> None:
    with pytest.raises(
        ValueError, match=rf"context is {context}: .*between 1 and 131072.*glm-4-9b"
    ):
        PLANNER.choose(torch.bfloat16, None, context, None, may_offload=False)


def test_table_has_a_line_per_part_when_shown() -> None:
    plan = choose(with_resident(12).total, may_offload=True)
    lines = plan.table("glm-4-9b", Budget(plan.total, "max_memory")).splitlines()
    assert lines[0] == "memory plan of glm-4-9b"
    names = [re.split("  +", line.strip())[0] for line in lines[1:]]
    assert names == ["weights", "KV cache", "working space", "headroom", "total"]
    assert "bfloat16, 12 of 40 layers; the others, 11.4 GB, are streamed" in lines[1]
    assert "context of 131,072 tokens" in lines[2]
    assert lines[-1].endswith(f"of {readable(plan.total)} max_memory")
