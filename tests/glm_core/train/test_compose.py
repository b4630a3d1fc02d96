from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from glm_core.train.compose import (
    TRAIN,
    compose_config,
    config_folder,
    describe_experiments,
    list_options,
    to_yaml,
    valid_keys,
)
from glm_core.train.config import TrainConfig

# data.source has no default where the user must name one
GIVEN = {"files": ["data.source=texts"], "my_text": ["data.source=texts"]}
CHOICES = [(group, name) for group in TRAIN.group_names for name in list_options(TRAIN, group)]
PACKAGES = ("codegeex",)
"""Folders of the packages beside this one, whose tests compose what is in them."""
FILES = [
    path
    for path in sorted(config_folder().rglob("*.yaml"))
    if path.relative_to(config_folder()).parts[0] not in PACKAGES
]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_file_gives_a_typed_config_when_chosen(group: str, name: str) -> None:
    config = compose_config(TRAIN, [f"{group}={name}", *GIVEN.get(name.rpartition("/")[2], [])])
    assert isinstance(config, TrainConfig)


def test_no_file_is_left_out_when_all_groups_are_listed() -> None:
    files = {path.relative_to(config_folder()).as_posix() for path in FILES}
    assert files == {f"{group}/{name}.yaml" for group, name in CHOICES} | {"train.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_head_comment_says_what_to_expect_when_runnable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    if path.stem == "train" or "experiment" in path.parts:
        assert all(f"# {word}" in text for word in ("Command", "Hardware", "Expected"))


def test_debug_sibling_exists_when_experiment_is_primary() -> None:
    names = set(list_options(TRAIN, "experiment"))
    primary = {name for name in names if "/" not in name} - {"debug", "demo"}
    assert {f"debug/{name}" for name in primary} <= names


def test_experiment_has_the_last_word_when_composed() -> None:
    config = compose_config(TRAIN, ["experiment=debug"])
    assert config.run_dir == "outputs/debug" and config.model.hidden_size == 64
    assert compose_config(TRAIN, ["experiment=debug", "run_dir=x"]).run_dir == "x"


def test_resolved_yaml_reads_back_when_saved() -> None:
    config = compose_config(TRAIN, ["experiment=nano_text"])
    again = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(to_yaml(config)))
    )
    assert again == config


def test_every_experiment_is_described_when_listed() -> None:
    described = describe_experiments(TRAIN)
    assert described.keys() == set(list_options(TRAIN, "experiment"))
    assert all(len(text) > 15 for text in described.values())


def test_keys_cover_the_tree_when_listed() -> None:
    keys = set(valid_keys(TRAIN))
    assert {"run_dir", "model.hidden_size", "data.source", "optim.lr", "trainer.seed"} <= keys


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_step=3", "unknown key trainer.max_step .*: did you mean trainer.max_steps"),
        ("max_steps=3", "unknown key max_steps .*: did you mean trainer.max_steps"),
        ("lr=1", "unknown key lr .*: did you mean optim.lr"),
        ("zzz=1", "unknown key zzz in 'zzz=1': groups are experiment, model"),
        ("+trainer.wings=1", "unknown key trainer.wings"),
        ("experiment=debg", "experiment=debg does not exist: did you mean debug"),
        ("experiment=", "experiment= does not exist: choose from debug"),
        ("model=giant", "model=giant does not exist: choose from .*nano"),
        ("debug", "'debug' is not of the form key=value; for example experiment=debug"),
        ("trainer.max_steps=abc", "trainer.max_steps: Value 'abc' .* converted to Integer"),
        ("optim.schedule=line", r"optim.schedule: Invalid value 'line', expected one of \[const"),
        ("trainer.max_steps=0", "trainer.max_steps is 0; it must be at least 1"),
        ("run_dir=", "run_dir is empty; name a folder"),
        ("data.seq_length=4096", "data.seq_length is 4096, longer than model.max_position"),
        ("model.generation_layout=causal", "layout is causal, but data.mask, .*set the three to 0"),
        ("model.generation_layout=blank_1d", "layout is blank_1d, .*gmask_positions_go_on=True"),
        ("data.gmask_positions_go_on=true", "layout is blank, .*set data.gmask_positions_go_on=F"),
        ("data.vocab_size=200", "data.vocab_size is 200.* at least 264"),
        ("model.vocab_size=100", "data.vocab_size is 8192, more ids than model.vocab_size"),
    ],
)
def test_error_names_key_and_remedy_when_override_is_wrong(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_config(TRAIN, [override])


@pytest.mark.parametrize(
    "path", ["texts, old", "a=b", "My texts (2)", "it's", "Träume/文", "~/x-1.txt", "[a]{b}"]
)
def test_path_is_taken_as_written_when_it_has_odd_characters(path: str) -> None:
    config = compose_config(TRAIN, [f"data.source={path}", f"run_dir={path}"])
    assert config.data.source == config.run_dir == path


def test_error_names_the_layout_when_no_blank_is_trained() -> None:
    only_causal = ["data.mask=0", "data.sentence=0", "data.gmask=0", "data.causal=1"]
    with pytest.raises(ValueError, match="layout is blank, but only data.causal is above 0"):
        compose_config(TRAIN, only_causal)
    compose_config(TRAIN, [*only_causal, "model.generation_layout=causal"])
