"""From words on the command line to a typed config. Hydra ends here.

YAML files are data under configs/; every group has a schema, so that a wrong key or a wrong type
fails before anything runs. A package beside glm_core has a folder of its own there, for what it
has of its own: its primary configs, and files of the groups, which go before those of all.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

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

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, kw_only=True)
class Primary(Generic[ConfigT]):
    """A primary config: a YAML file that names the groups, and the types of what comes out."""

    schema: type[ConfigT]
    """Of the whole tree."""
    groups: Mapping[str, type[Any]]
    """Schema of each group that has one; `experiment` has none, it is about all of them."""
    package: str = ""
    """Folder below configs/ whose files go before those of all; empty for glm_core's own."""
    name: str = "train"
    """Of the YAML file."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """Groups that one can choose from on the command line."""
        return ("experiment", *self.groups)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its files lie, the first found counts."""
        root = config_folder()
        return (root / self.package, root) if self.package else (root,)


TRAIN = Primary(
    schema=TrainConfig,
    groups={
        "model": TransformerConfig,
        "data": DataConfig,
        "optim": OptimConfig,
        "trainer": TrainerConfig,
    },
)


def config_folder() -> Path:
    """The folder of YAML files: inside an installed package, or at the root of the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parents[3] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no configs/train.yaml in or above {package}: install glm-lab again")


def list_options(primary: Primary[Any], group: str) -> list[str]:
    """Names of the files of a group, those in sub-folders as `debug/nano_text`.

    Experiments and data are a package's own where it has any: those of others do not fit.
    """
    return sorted(_files(primary, group))


def describe_experiments(primary: Primary[Any]) -> dict[str, str]:
    """The first sentence of each experiment's head comment."""
    described = {}
    for name, path in sorted(_files(primary, "experiment").items()):
        text = path.read_text(encoding="utf-8")
        lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        comment = " ".join(line.lstrip("# ") for line in lines if "@package" not in line)
        described[name] = re.split(r"(?<=[.?!])\s", comment, maxsplit=1)[0]
    return described


def compose_config(primary: Primary[ConfigT], overrides: Sequence[str]) -> ConfigT:
    """Compose a primary config with overrides such as `experiment=debug` or `optim.lr=1e-3`.

    Raises:
        ValueError: if an override is malformed, names an unknown key (the nearest valid ones are
            given), or makes an impossible combination.
    """
    for override in overrides:
        _check_override(primary, override)
    _register_schemas(primary)
    GlobalHydra.instance().clear()
    search = [f"hydra.searchpath=[file://{folder}]" for folder in primary.folders[1:]]
    quoted = [_quoted(primary, override) for override in overrides]
    try:
        with initialize_config_dir(str(primary.folders[0]), version_base="1.3"):
            tree = compose(primary.name, [*search, *quoted])
        config = OmegaConf.to_object(tree)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_message(error)) from error
    except YAMLError as error:
        raise ValueError(f"a file under {config_folder()} is not valid YAML: {error}") from error
    assert isinstance(config, primary.schema)
    return config


def to_yaml(config: Any) -> str:
    """The resolved configuration, as it is written to run_dir/config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def valid_keys(primary: Primary[Any]) -> Iterator[str]:
    """Every key that can be set, for example `optim.lr`."""
    return (name for name, _ in _leaves(primary.schema))


def _files(primary: Primary[Any], group: str) -> dict[str, Path]:
    """The files of a group by name."""
    found: dict[str, Path] = {}
    for folder in primary.folders:
        files = sorted((folder / group).rglob("*.yaml"))
        for path in files:
            found.setdefault(path.relative_to(folder / group).with_suffix("").as_posix(), path)
        if files and group in ("experiment", "data"):
            break
    return found


def _leaves(config: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its type."""
    hints = get_type_hints(config)
    for field in fields(config):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _leaves(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kind


def _register_schemas(primary: Primary[Any]) -> None:
    store = ConfigStore.instance()
    store.store(f"{primary.name}_schema", primary.schema)
    for group, schema in primary.groups.items():
        store.store(f"{group}_schema", schema, package=group)


def _check_override(primary: Primary[Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ValueError(
            f"{override!r} is not of the form key=value; for example experiment=debug or"
            " trainer.max_steps=100"
        )
    key = key.lstrip("+~")
    if key in primary.group_names:
        _check_option(primary, key, value)
        return
    keys = list(valid_keys(primary))
    if key in keys:
        return
    known = [*keys, *primary.group_names]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    # `max_step` alone should find trainer.max_steps as well
    last = key.rpartition(".")[2]
    near += [
        other
        for other in known
        if other not in near
        and difflib.SequenceMatcher(None, last, other.rpartition(".")[2]).ratio() > 0.8
    ]
    groups = ", ".join(primary.group_names)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"groups are {groups}"
    raise ValueError(f"unknown key {key} in {override!r}: {hint}")


def _quoted(primary: Primary[Any], override: str) -> str:
    """An override whose text, a path with a comma for one, Hydra takes as it is written."""
    key, _, value = override.partition("=")
    text_keys = {name for name, kind in _leaves(primary.schema) if kind is str}
    plain = re.fullmatch(r"[A-Za-z0-9_./-]*", value) or value[0] in "'\"" or "${" in value
    if plain or key.lstrip("+") not in text_keys:
        return override
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _check_option(primary: Primary[Any], group: str, value: str) -> None:
    options = list_options(primary, group)
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
