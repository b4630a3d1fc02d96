"""Folders of weights as they lie on disks, one file, several, or one per rank; and their faults."""

import json

import pytest
import torch
from safetensors.torch import save_file

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.folder import open_folder


def save(folder, *names):
    """Writes files that each hold one tensor, named after the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        tensors = {name.split(".")[0]: torch.ones(2)}
        path = folder / name
        save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def ranks(*numbers, suffix="pt"):
    return [f"mp_rank_{number:02d}_model_states.{suffix}" for number in numbers]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_one_file(tmp_path, name):
    save(tmp_path, name)
    folder = open_folder(tmp_path)
    assert list(folder.tensors) == [name.split(".")[0]]
    assert not folder.is_tensor_parallel and folder.config == {}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_ranks_in_their_order(tmp_path, suffix):
    save(tmp_path, *ranks(*range(11), suffix=suffix))
    folder = open_folder(tmp_path)
    assert [list(rank) for rank in folder.ranks] == [
        [f"mp_rank_{number:02d}_model_states"] for number in range(11)
    ]
    assert folder.is_tensor_parallel


@pytest.mark.parametrize("note", ["latest", "latest_checkpointed_iteration.txt"])
def test_ranks_are_found_when_a_note_names_their_folder(tmp_path, note):
    save(tmp_path / "49300", *ranks(0, 1))
    (tmp_path / note).write_text("49300\n")
    assert len(open_folder(tmp_path).ranks) == 2


def test_index_is_preferred_to_a_single_file_and_safetensors_to_pickles(tmp_path):
    save(tmp_path, "pytorch_model.bin", "model-00001-of-00002.safetensors", "b.safetensors")
    weight_map = {"model-00001-of-00002": "model-00001-of-00002.safetensors", "b": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}))
    assert set(open_folder(tmp_path).tensors) == set(weight_map)


def refuse(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        open_folder(path)
    assert "\n" not in str(caught.value)


def test_error_when_there_is_nothing(tmp_path):
    refuse(tmp_path / "none", "none does not exist: give the folder that holds the weights")
    refuse(tmp_path, "no weights in .*: expected model.safetensors or pytorch_model.bin")


def test_error_names_the_link_when_its_file_is_gone(tmp_path):
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "1f2e")
    refuse(tmp_path, r"model\.safetensors is a link to a file that is gone: copy or download")


def test_only_file_is_the_model_when_it_has_a_name_of_its_own(tmp_path):
    save(tmp_path, "codegeex_13b.pt")
    assert set(open_folder(tmp_path).tensors) == {"codegeex_13b"}


def test_error_names_the_files_when_several_have_names_of_their_own(tmp_path):
    save(tmp_path, "codegeex_13b.pt", "z.pt")
    refuse(tmp_path, r"give the path of the one that is the model, such as .*/codegeex_13b\.pt, to")
    refuse(tmp_path, r"\(codegeex_13b\.pt, z\.pt\)$")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        ("pytorch_model-00001-of-00008.bin", "pytorch_model.bin.index.json"),
    ],
)
def test_error_names_the_index_when_only_that_is_missing(tmp_path, name, index):
    save(tmp_path, name)
    refuse(tmp_path, f"has {name} but no {index}, which tells what is in which file: copy it too")


@pytest.mark.parametrize(("present", "absent"), [((1,), 0), ((0, 2), 1), ((0, 1, 3, 5), 2)])
def test_error_names_the_rank_when_one_is_missing(tmp_path, present, absent):
    save(tmp_path, *ranks(*present))
    refuse(tmp_path, rf"lacks mp_rank_{absent:02d}_model_states: it has ranks \[")


def test_error_when_a_rank_is_there_twice(tmp_path):
    save(tmp_path, *ranks(0), *ranks(0, suffix="safetensors"))
    refuse(tmp_path, "has rank 0 twice, .*: keep one of them")


INDEX = {"metadata": {}, "weight_map": {"model": "model.safetensors"}}


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (b"{", "index.json is damaged or truncated .*copy or download it again"),
        (b"\x80\x81", "index.json is damaged or truncated"),
        (b"[" * 100_000, "index.json is damaged or truncated"),
        (b"[]", "has no weight_map"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map": ["a"]}', "has no weight_map"),
        (b'{"weight_map": {}}', "names no tensor"),
        (b'{"weight_map": {"a": "../a.safetensors"}}', r"names '\.\./a\.safetensors' outside"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "names '/etc/passwd' outside its folder"),
        (b'{"weight_map": {"a": "sub/a.safetensors"}}', "outside its folder"),
        (b'{"weight_map": {"a": ".."}}', r"names '\.\.' outside its folder"),
        (b'{"weight_map": {"a": ""}}', "outside its folder"),
        (b'{"weight_map": {"a": null}}', "None is missing|outside"),
        (b'{"weight_map": {"a": "b.safetensors"}}', r"b\.safetensors is missing"),
        (
            b'{"weight_map": {"a": "model.safetensors"}}',
            r"index\.json promises a in model\.safetensors, which does not have it",
        ),
    ],
)
def test_error_when_the_index_is_damaged(tmp_path, index, match):
    save(tmp_path, "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    refuse(tmp_path, match)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (b"{", "config.json is damaged or truncated"),
        (b"\x80\x81", "config.json is damaged or truncated"),
        (b"[" * 100_000, "config.json is damaged or truncated"),
        (b"[]", "config.json holds no JSON object"),
    ],
)
def test_error_when_config_json_is_damaged(tmp_path, config, match):
    save(tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_bytes(config)
    refuse(tmp_path, match)


@pytest.mark.parametrize("name", ["..", "../other", "/tmp", "absent", "", "\x80\x81"])
def test_error_when_the_note_names_no_folder_inside(tmp_path, name):
    save(tmp_path / "other", *ranks(0))
    save(tmp_path, *ranks(0))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "latest").write_bytes(name.encode("latin-1"))
    refuse(inside, "latest names the folder .*, which is not in .*: copy it as well, or delete")
