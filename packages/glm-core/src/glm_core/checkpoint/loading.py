"""A model from its folder or its name, ready to answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glm_core.checkpoint.device_memory import free_memory, memory_budget, readable
from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import REMEDY
from glm_core.checkpoint.formats.glm_lab import GLM_LAB, QUANTIZE
from glm_core.checkpoint.hub import resolve_model
from glm_core.checkpoint.memory_plan import MemoryPlan, Planner
from glm_core.checkpoint.released import Checkpoint, open_checkpoint
from glm_core.checkpoint.weight_reader import WeightReader
from glm_core.progress import Progress
from glm_core.quantize.layout import Layout, QuantizeConfig
from glm_core.quantize.quantize import (
    check_prompt_activation_bits,
    layouts_of,
    pack_,
    set_prompt_activation_bits,
)

if TYPE_CHECKING:
    from glm_core.model.transformer import Transformer
    from glm_core.tokenizer.protocol import Tokenizer
    from glm_kernels import ActivationBits

logger = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_EMBEDDING = "word_embeddings.weight"
HOST_SHARE = 0.9
"""Of the free host memory, what layers may fill that wait for their turn on a device."""


class LoadQuantize(StrEnum):
    """What becomes of the matrices of the blocks."""

    keep = "keep"
    """As stored: quantized rows stay rows."""
    none = "none"
    """Numbers of the model's dtype, also where rows are stored."""
    int8 = "int8"
    int4 = "int4"


def load_model(
    name_or_folder: Path | str,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device = "cpu",
    quantize: str | QuantizeConfig | Mapping[str, Layout] = "keep",
    max_memory: int | str | None = None,
    context: int | None = None,
    format: str | None = None,
    tokenizer_kind: str | None = None,
    reference_numerics: bool = False,
    prefix: Path | str | None = None,
    prompt_activation_bits: ActivationBits = 15,
    progress: bool = True,
    on_plan: Callable[[MemoryPlan], None] | None = None,
) -> tuple[Transformer, Tokenizer]:
    """Loads a model and its tokenizer.

    Before a weight is read, a memory plan is logged; what cannot fit is refused, with what would.
    Weights go to the device tensor by tensor. On the CPU those that need no change (stored in
    `dtype` and in one piece) are mapped rather than read: they take page cache, which everything
    shares that has the folder loaded, and come from the disk when they are first used.

    Args:
        name_or_folder: a folder in any format that `glm convert --list` names; the name of a model
            that comes with the package; or a name on the Hugging Face hub, "org/name" or
            "org/name@revision".
        dtype: of the weights that are not quantized. None never rounds: on CUDA as stored; on the
            CPU float32, or bfloat16 if stored so and the CPU multiplies it natively (AMX).
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", ...
        quantize: "keep" leaves the matrices of the blocks as they are stored: rows or groups of 8
            or 4 bits stay so. "none" turns them into numbers. "int8", "int4", a config and layouts
            by module quantize each matrix as it is read; the two names mean whole rows, the layout
            of released weights. What `save_pretrained(..., quantize="int8")` wrote is a compact
            file, not a quantized model: "keep" turns it into numbers too.
        max_memory: most that the model may use on `device`: bytes, or "6GB", "512MiB".
        context: tokens of prompt and answer that must fit; None for the model's own context, or as
            many as fit.
        format: of the folder, where it is not recognised.
        tokenizer_kind: of the folder's vocabulary, where its files do not tell (`load_tokenizer`).
        reference_numerics: round as the original code does in half precision, for comparing with
            it; by default the order of operations that loses less. ChatGLM-6B's frequencies are
            rounded to fp16 in its own code even where everything else is fp32.
        prefix: file or folder of a prefix encoder that was tuned for the model (P-tuning v2); a
            folder that holds both needs no mention of it.
        prompt_activation_bits: of the products with quantized matrices on the CPU: 15, or 8 to read
            prompts faster and a little less exactly (`set_prompt_activation_bits`).
        progress: whether to log how far it is, every few seconds.
        on_plan: called with the memory plan, which tells the context that was planned for.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        CheckpointError: the folder, or a file in it, is missing, damaged or does not fit the model.
        ValueError: an argument is not valid, or the model does not fit into memory.
    """
    from glm_core.tokenizer.loading import load_tokenizer
    from glm_core.train.precision import resolve_device
    from glm_core.tune.prefix_file import has_prefix, read_prefix

    where = resolve_device(str(device), "device")
    folder = resolve_model(name_or_folder)
    checkpoint = open_checkpoint(folder, format)
    checkpoint.config = replace(checkpoint.config, reference_numerics=reference_numerics)
    layouts = loaded_layouts(checkpoint, quantize)
    check_prompt_activation_bits(prompt_activation_bits, bool(layouts))
    kind = _default_dtype(checkpoint, where) if dtype is None else _dtype(dtype)
    budget = memory_budget(where, max_memory)
    plan = Planner(checkpoint.config, str(name_or_folder)).choose(
        kind, _widest(layouts), context, budget, may_offload=max_memory is not None
    )
    show = plan.line if plan.is_small else plan.table
    logger.info(show(f"{name_or_folder} on {where}", budget))
    if on_plan is not None:
        on_plan(plan)
    tokenizer = load_tokenizer(folder, tokenizer_kind)
    if prefix is None and has_prefix(checkpoint.files):
        prefix = folder
    # before the weights, which may take minutes
    encoder = None if prefix is None else read_prefix(checkpoint.config, prefix)
    begin, total = time.monotonic(), plan.weights + plan.offloaded
    line = Progress("loading", total / 1e6, "MB") if progress else None
    reader = WeightReader(checkpoint, kind, layouts, where, line)
    model = _load_offloaded(reader, plan) if plan.offloaded else _load_whole(reader)
    if not plan.is_small:
        mapped = f", {readable(reader.mapped_bytes)} of it mapped" if reader.mapped_bytes else ""
        logger.info("loaded %s in %.1f s%s", readable(total), time.monotonic() - begin, mapped)
    if encoder is not None:
        model.prefix = encoder.to(where)
    set_prompt_activation_bits(model, prompt_activation_bits)
    return model.eval(), tokenizer


def _load_whole(reader: WeightReader) -> Transformer:
    model = reader.empty_model()
    tensors: dict[str, Tensor] = {}
    for name in reader.checkpoint.names():
        tensors |= reader.read(name)
    model.load_state_dict(tensors, assign=True)
    del tensors
    pack_(model)
    return model


def _load_offloaded(reader: WeightReader, plan: MemoryPlan) -> Transformer:
    """Keeps what the plan says on the device; the other layers are streamed from now on."""
    from glm_core.infer.offload import offload_

    host = free_memory(torch.device("cpu"))
    fits = host is None or plan.offloaded < HOST_SHARE * host
    hold = reader.device.type == "cuda" and fits
    if not hold:
        reader.check_streamable()
    model = reader.empty_model()
    tensors: dict[str, Tensor] = {}
    for name in reader.checkpoint.names():
        if not name.startswith("layers."):
            tensors |= reader.read(name)
    model.load_state_dict(tensors, assign=True, strict=False)
    layers = offload_(
        model,
        reader,
        plan.choice.resident,
        reader.device,
        hold=hold,
        on_read=reader.count,
    )
    pack_(model)  # what stays; layers that pass come as they are stored
    logger.info("%s", layers.report())
    return model


def _quantize_kind(name: str) -> LoadQuantize:
    try:
        return LoadQuantize(name)
    except ValueError:
        kinds = ", ".join(kind.value for kind in LoadQuantize)
        raise ValueError(f"quantize is {name!r}; use one of: {kinds}") from None


def loaded_layouts(
    checkpoint: Checkpoint, quantize: str | QuantizeConfig | Mapping[str, Layout]
) -> dict[str, Layout]:
    """Modules whose matrix is quantized once it is loaded, by name; see `load_model`.

    Raises:
        ValueError: `quantize` is not valid, or more bits are asked for than are stored.
    """
    from glm_core.model.size import meta_transformer

    if isinstance(quantize, Mapping):
        return dict(quantize)
    how = quantize if isinstance(quantize, QuantizeConfig) else _quantize_kind(quantize)
    if how is LoadQuantize.none:
        return {}
    stored = stored_layouts(checkpoint)
    if how is LoadQuantize.keep:
        return stored
    if not isinstance(how, QuantizeConfig):
        how = QuantizeConfig(bits=8 if how is LoadQuantize.int8 else 4)
    fewest = min((layout.bits for layout in stored.values()), default=how.bits)
    if how.bits > fewest:
        raise ValueError(
            f"quantize is int{how.bits}, but {checkpoint.folder} is stored with int{fewest} "
            "matrices, and more bits cannot bring back what was rounded: use quantize=keep"
        )
    layouts = layouts_of(meta_transformer(checkpoint.config), how)
    if quantize in ("int8", "int4"):  # what has as many bits already is not rounded again
        same = {name: kept for name, kept in stored.items() if kept.bits == how.bits}
        return layouts | {name: same[name] for name in layouts if name in same}
    return layouts


def stored_layouts(checkpoint: Checkpoint) -> dict[str, Layout]:
    """Modules that are computed with as they are stored, quantized; by name.

    Raises:
        CheckpointError: config.json says something else of them than the tensors.
    """
    from glm_core.model.size import meta_transformer

    model = meta_transformer(checkpoint.config)
    says = checkpoint.files.config.get(QUANTIZE) if checkpoint.format is GLM_LAB else None
    if says is None and checkpoint.format is GLM_LAB and checkpoint.info(_EMBEDDING).bits:
        return {}  # a compact file: every matrix in it is quantized, to be small
    every = QuantizeConfig(bits=8, embeddings=says is not None, head=says is not None)
    stored = {
        name: layout
        for name in layouts_of(model, every)
        if (layout := checkpoint.layout(f"{name}.weight")) is not None
    }
    if says is not None and stored != _promised(model, says, checkpoint):
        raise CheckpointError(
            f"{checkpoint.folder}: what config.json says under {QUANTIZE!r} is not how the tensors "
            "are quantized: copy both files from the same folder, or quantize again"
        )
    return stored


def _promised(model: Transformer, says: Any, checkpoint: Checkpoint) -> dict[str, Layout]:
    """The layouts that config.json speaks of."""
    try:
        values = {name: value for name, value in dict(says).items() if name != "method"}
        return layouts_of(model, QuantizeConfig.from_dict(values))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.folder / 'config.json'} has {QUANTIZE}={says!r}: {error}; {REMEDY}"
        ) from error


def _widest(layouts: Mapping[str, Layout]) -> Layout | None:
    """The layout to plan memory with: the one that takes most."""
    return max(layouts.values(), key=lambda layout: layout.bits_per_weight, default=None)


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    kind = _DTYPES.get(str(dtype).removeprefix("torch."))
    if kind is None:
        raise ValueError(f"dtype is {dtype}: use one of {', '.join(_DTYPES)}")
    return kind


def _default_dtype(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """The dtype that loses nothing and is fast; see `load_model`."""
    stored = checkpoint.info(_EMBEDDING).dtype
    if device.type != "cpu":
        return stored
    is_native = stored == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if is_native else torch.float32
