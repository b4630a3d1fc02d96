"""The flags by which every command that runs a model names and loads it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glm_core.checkpoint.memory_plan import MemoryPlan
    from glm_core.model import Transformer
    from glm_core.tokenizer import Tokenizer


class _Named(argparse.Action):
    """Collects what is named; the default stands only where nothing is."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), values])


def add_model_arguments(
    parser: argparse.ArgumentParser,
    default: str | None = None,
    several: bool = False,
    prefix_flag: str = "--prefix",
) -> None:
    """Declare the flags; without `default` a model must be named.

    Args:
        several: whether `--model` may be repeated and may give names, `name=path`: a list then.
        prefix_flag: of the prefix encoder, where the command calls something else a prefix.
    """
    known: Any = [default] if several and default is not None else default
    said = "" if default is None else f" (default: {default})"
    told = f"name, folder of any released format, or org/name on the hub{said}"
    if several:
        told += "; NAME=PATH serves it under that name (repeats)"
    parser.add_argument(
        "--model",
        action=_Named if several else "store",
        default=known,
        required=default is None,
        help=told,
    )
    loading = parser.add_argument_group("loading")
    loading.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda, ... (default: %(default)s)"
    )
    loading.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights (one that loses nothing)",
    )
    loading.add_argument(
        "--quantize",
        choices=["keep", "none", "int8", "int4"],
        default="keep",
        help="keep the blocks' matrices as they are stored, turn quantized ones into numbers, or "
        "quantize them to 8 or 4 bits (default: %(default)s)",
    )
    loading.add_argument(
        "--fast-prompts",
        action="store_true",
        help="read prompts with 8-bit activations where matrices are quantized: faster on a CPU "
        "without AMX, a little less exact",
    )
    loading.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="most that the model may use on the device, such as 6GB (all that is free)",
    )
    loading.add_argument(
        "--context",
        type=int,
        metavar="TOKENS",
        help="that must fit, prompt and answer (what the model has, or as many as fit)",
    )
    loading.add_argument(
        prefix_flag,
        dest="prefix_encoder",
        metavar="FILE",
        help="prefix encoder tuned for the model (P-tuning v2)",
    )
    loading.add_argument(
        "--attention",
        default="auto",
        metavar="NAME",
        help="eager, sdpa, flex, triton, xformers or cpu; auto is the fastest as measured by "
        "`glm bench kernels --tune`, or a good guess (default: %(default)s)",
    )
    loading.add_argument(
        "--reference-numerics",
        action="store_true",
        help="round as the original code does in half precision",
    )
    loading.add_argument(
        "--from", dest="source_format", metavar="FORMAT", help="of the folder (recognised)"
    )
    loading.add_argument(
        "--tokenizer-kind",
        metavar="KIND",
        help="of the folder's vocabulary, where its files do not tell, such as chatglm3",
    )


@dataclass(frozen=True, slots=True)
class NamedModel:
    """What the flags named."""

    model: Transformer
    tokenizer: Tokenizer
    context: int
    """Tokens that prompt and answer may take together: what the memory plan has room for."""


def load_named_model(args: argparse.Namespace) -> NamedModel:
    """Load what the flags say."""
    from glm_core.attention import check_name
    from glm_core.checkpoint.device_memory import parse_memory
    from glm_core.checkpoint.loading import load_model
    from glm_core.train.precision import resolve_device

    check_name(args.attention)  # before the model is loaded, which can take minutes
    limit = args.max_memory
    plans: list[MemoryPlan] = []
    model, tokenizer = load_model(
        args.model,
        dtype=args.dtype,
        device=resolve_device(args.device, "--device"),
        quantize=args.quantize,
        max_memory=None if limit is None else parse_memory(limit, "--max-memory"),
        context=args.context,
        format=args.source_format,
        tokenizer_kind=args.tokenizer_kind,
        reference_numerics=args.reference_numerics,
        prefix=args.prefix_encoder,
        prompt_activation_bits=8 if args.fast_prompts else 15,
        on_plan=plans.append,
    )
    model.choose_attention(args.attention)
    return NamedModel(model, tokenizer, plans[0].choice.context)
