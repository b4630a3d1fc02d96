from __future__ import annotations

from pathlib import Path

import pytest

from codegeex.training.config import CodeTrainConfig
from codegeex.training.run import TRAIN
from glm_core.train.compose import compose_config, config_folder, describe_experiments, list_options

FOLDER = config_folder() / "codegeex"
FILES = sorted(FOLDER.rglob("*.yaml"))
GIVEN = ["model.generation_layout=causal", "data.seq_length=256"]
"""What the core's own models lack here: they fill blanks, and some are short."""
CHOICES = [(group, name) for group in TRAIN.group_names for name in list_options(TRAIN, group)]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_file_gives_a_typed_config_when_chosen(group, name):
    begun = ["init_from=nano-code"] if group == "lora" else []
    given = GIVEN if group == "model" else []
    assert isinstance(compose_config(TRAIN, [f"{group}={name}", *given, *begun]), CodeTrainConfig)


def test_no_file_is_left_out_when_all_groups_are_listed():
    files = {path.relative_to(FOLDER).as_posix() for path in FILES}
    listed = {f"{group}/{name}.yaml" for group, name in CHOICES} | {"train.yaml"}
    assert files <= listed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_head_comment_says_what_to_expect_when_runnable(path: Path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    if path.stem == "train" or "experiment" in path.parts:
        assert all(f"# {word}" in text for word in ("Command", "Hardware", "Expected"))


def test_debug_sibling_exists_when_experiment_is_primary():
    names = set(list_options(TRAIN, "experiment"))
    assert {f"debug/{name}" for name in names if "/" not in name and name != "debug"} <= names


def test_experiments_are_this_packages_own_when_listed():
    described = describe_experiments(TRAIN)
    assert "nano_code" in described and "nano_text" not in described
    assert compose_config(TRAIN, ["experiment=debug"]).run_dir == "outputs/codegeex_debug"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.fim_rat=1"], "unknown key data.fim_rat .*: did you mean data.fim_rate"),
        (["experiment=nano_text"], "experiment=nano_text does not exist: did you mean nano_code"),
        (["data.fim=smp"], "fim format 'smp' is unknown: did you mean spm"),
        (["model=nano"], "generation_layout is blank: code is written from left to right"),
        (["data.seq_length=4096"], "longer than model.max_position_embeddings"),
        (["lora.rank=8"], "lora.rank is 8, but init_from is empty"),
        (["lora.alpha=0"], "lora.alpha is 0.0: it must be above 0"),
        (["run_dir="], "run_dir is empty"),
    ],
)
def test_error_names_key_and_remedy_when_something_is_wrong(overrides, message):
    with pytest.raises(ValueError, match=message):
        compose_config(TRAIN, overrides)
