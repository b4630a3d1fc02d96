"""From words on the command line to a typed TrainConfig. Hydra ends here.

YAML files are data under configs/; every group has a schema, so that a wrong key or a wrong type
fails before anything runs.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from glm_core.data.config import DataConfig
from glm_core.model.config import TransformerConfig
from glm_core.train.config import TrainConfig
from glm_core.train.optim import OptimConfig
from glm_core.train.trainer_config import TrainerConfig

GROUPS = ("experiment", "model", "data", "optim", "trainer")


def config_folder() -> Path:
    """The folder of YAML files: inside an installed package, or at the root of the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parents[3] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configs/train.yaml in or above {package}: install glm-lab again")


def list_options(group: str) -> list[str]:
    """Names of the files of a group, those in sub-folders as `debug/nano_text`."""
    folder = config_folder() / group
    files = folder.rglob("*.yaml")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def describe_experiments() -> dict[str, str]:
    """The first sentence of each experiment's head comment."""
    described = {}
    for name in list_options("experiment"):
        text = (config_folder() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        comment = " ".join(line.lstrip("# ") for line in lines if "@package" not in line)
        described[name] = re.split(r"(?<=[.?!])\s", comment, maxsplit=1)[0]
    return described


def compose_train_config(overrides: Sequence[str]) -> TrainConfig:
    """Compose configs/train.yaml with overrides such as `experiment=debug` or `optim.lr=1e-3`.

    Raises:
        ValueError: if an override is malformed, names an unknown key (the nearest valid ones are
            given), or makes an impossible combination.
    """
    for override in overrides:
        _check_override(override)
    _register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            tree = compose("train", [_quoted(override) for override in overrides])
        config = OmegaConf.to_object(tree)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_message(error)) from error
    except YAMLError as error:
        raise ValueError(f"a file under {config_folder()} is not valid YAML: {error}") from error
    assert isinstance(config, TrainConfig)
    return config


def to_yaml(config: TrainConfig) -> str:
    """The resolved configuration, as it is written to run_dir/config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def valid_keys() -> Iterator[str]:
    """Every key that can be set, for example `optim.lr`."""
    return (name for name, _ in _leaves())


def _leaves(config: type[Any] = TrainConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type."""
    for field in fields(config):
        if isinstance(field.type, type) and is_dataclass(field.type):
            yield from _leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


def _register_schemas() -> None:
    store = ConfigStore.instance()
    store.store("train_schema", TrainConfig)
    store.store("model_schema", TransformerConfig, package="model")
    store.store("data_schema", DataConfig, package="data")
    store.store("optim_schema", OptimConfig, package="optim")
    store.store("trainer_schema", TrainerConfig, package="trainer")


def _check_override(override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ValueError(
            f"{override!r} is not of the form key=value; for example experiment=debug or"
            " trainer.max_steps=100"
        )
    key = key.lstrip("+~")
    if key in GROUPS:
        _check_option(key, value)
        return
    keys = list(valid_keys())
    if key in keys:
        return
    known = [*keys, *GROUPS]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    # `max_step` alone should find trainer.max_steps as well
    last = key.rpartition(".")[2]
    near += [
        other
        for other in known
        if other not in near
        and difflib.SequenceMatcher(None, last, other.rpartition(".")[2]).ratio() > 0.8
    ]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"groups are {', '.join(GROUPS)}"
    raise ValueError(f"unknown key {key} in {override!r}: {hint}")


def _quoted(override: str) -> str:
    """An override whose text, a path with a comma for one, Hydra takes as it is written."""
    key, _, value = override.partition("=")
    text_keys = {name for name, kind in _leaves() if kind is str}
    plain = re.fullmatch(r"[A-Za-z0-9_./-]*", value) or value[0] in "'\"" or "${" in value
    if plain or key.lstrip("+") not in text_keys:
        return override
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _check_option(group: str, value: str) -> None:
    options = list_options(group)
    if value not in options and value != "null":
        near = difflib.get_close_matches(value, options, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"{group}={value} does not exist: {hint}choose from {', '.join(options)}")


def _message(error: BaseException) -> str:
    """The innermost reason that Hydra or OmegaConf gives, with the key that it is about."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if cause is None:
        return " ".join(str(error).split())
    first_line = str(cause).splitlines()[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {first_line}" if key else first_line
