"""What a checkpoint format is: how it is recognised, its config.json, and its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import REMEDY, WeightFolder
from glm_core.checkpoint.keymap import Table
from glm_core.model.config import TransformerConfig

T = TypeVar("T")

UNSTORED = (
    "hidden_dropout",
    "attention_dropout",
    "init_std",
    "embedding_grad_scale",
    "reference_numerics",
    "rope_precision",
    "norm_precision",
    "score_order",
    "prompt_frame",
)
"""Fields of how a model is trained, rounded or prompted: a format without a place for them can hold
the model. Where they are not what the format means, they stand in config.json under `OURS`."""
OURS = "glm_lab"


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way in which models were released."""

    name: str
    """As `glm convert --to` takes it."""
    holds: str
    """The models that come in it, for people."""
    matches: Callable[[WeightFolder], bool]
    """Whether a folder is in this format."""
    read_config: Callable[[WeightFolder], TransformerConfig]
    """The model's config from config.json, or from the shapes where there is none."""
    write_config: Callable[[TransformerConfig], dict[str, Any]]
    """config.json as the format has it."""
    table: Callable[[TransformerConfig], Table]
    is_tensor_parallel: bool = False
    """Whether the files are one per tensor-parallel rank."""
    holds_groups: bool = False
    """Whether quantized matrices may have scales for groups of columns, and zero points."""
    prefix: str = ""
    """Before every name of the table: the nesting of the state dict."""

    def __str__(self) -> str:
        return self.name

    def config_of(self, folder: WeightFolder) -> TransformerConfig:
        """The config of the model in a folder.

        Raises:
            CheckpointError: config.json and the tensors do not describe a model.
        """
        try:
            return with_lost_fields(self.read_config(folder), folder)
        except CheckpointError as error:
            raise CheckpointError(f"{folder.path}: {error}") from error
        except (ArithmeticError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder.path / 'config.json'} does not describe a model ({error}): {REMEDY}"
            ) from error


def value_of(config: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """An entry of config.json.

    Raises:
        CheckpointError: it is missing and has no default, or is of the wrong kind.
    """
    value: Any = config.get(name)
    value = default if value is None else value
    if value is None:
        what = "config.json lacks" if config else "there is no config.json, which would tell"
        raise CheckpointError(f"{what} {name!r}: {REMEDY}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CheckpointError(
            f"config.json has {name}={value!r}: it must be of type {kind.__name__}; {REMEDY}"
        )
    return value


def require_value(config: Mapping[str, Any], name: str, *allowed: Any) -> None:
    """Checks that an entry of config.json, if there, asks for nothing that is not computed here.

    Raises:
        CheckpointError: it does.
    """
    if name in config and config[name] not in allowed:
        raise CheckpointError(
            f"config.json has {name}={config[name]!r}, which no released model of this format has: "
            f"it must be {' or '.join(map(repr, allowed))}"
        )


def lost_fields(config: TransformerConfig, meant: TransformerConfig) -> dict[str, Any]:
    """Those of `UNSTORED` in which a model differs from what a format means, ready for JSON."""
    ours, theirs = config.to_dict(), meant.to_dict()
    return {name: ours[name] for name in UNSTORED if ours[name] != theirs[name]}


def with_lost_fields(config: TransformerConfig, folder: WeightFolder) -> TransformerConfig:
    """A config as a format means it, with the fields that `lost_fields` found.

    Raises:
        CheckpointError: config.json has something else in their place.
    """
    lost = folder.config.get(OURS, {})
    if not isinstance(lost, dict) or not set(lost) <= set(UNSTORED):
        raise CheckpointError(
            f"config.json has {OURS}={lost!r}: it may set only {', '.join(UNSTORED)}; "
            "delete the entry"
        )
    return TransformerConfig.from_dict(config.to_dict() | lost)


def same_tensor(folder: WeightFolder, one: str, other: str) -> bool:
    """Whether two stored tensors are bitwise equal, compared a few rows at a time."""
    a, b = folder.tensors[one], folder.tensors[other]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if a == b:
        return True  # two names for the same bytes of a file
    step = max(1, (1 << 24) // max(1, a.span // max(1, a.shape[0])))
    for begin in range(0, a.shape[0], step):
        end = min(begin + step, a.shape[0])
        if not _same_bytes(a.read_rows(begin, end), b.read_rows(begin, end)):
            return False
    return True


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a.view(torch.uint8), b.view(torch.uint8)))


def is_tied(folder: WeightFolder, head: str, embedding: str) -> bool:
    """Whether the head is the embedding: config.json says so, or it is stored and bitwise equal."""
    if "tie_word_embeddings" in folder.config:
        return value_of(folder.config, "tie_word_embeddings", bool)
    if head not in folder.tensors:
        return True
    return embedding in folder.tensors and same_tensor(folder, head, embedding)
