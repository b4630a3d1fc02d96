"""Models by name: folders, the package, and a hub of this machine's own."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from glm_core.checkpoint import hub as hub_module
from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.hub import resolve_model
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import EMBEDDED, save_pretrained
from glm_core.testing import tiny_model
from glm_core.tokenizer.byte_bpe import ByteBPETokenizer

from .hub_imitation import COMMIT, HubImitation, serve

WEIGHTS = "model.safetensors"
IDS = torch.tensor([[1, 5, 3, 2, 9, 11]])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model as it lies on the hub, with what nobody here reads."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    tokenizer = ByteBPETokenizer.train(["some words and more words"], 300)
    save_pretrained(tiny_model("glm-4-9b", vocab_size=300), tokenizer, folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    unread = ("modeling_chatglm.py", "README.md", "pytorch_model.bin", "original/model.safetensors")
    return found | {name: name.encode() for name in (*unread, "training_args.bin")}


READ = ["config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def hub(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubImitation]:
    """The hub, reached by the library as the real one would be; the cache is empty."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr(hub_module, "_LARGE", 10_000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with serve(HubImitation({"org/tiny": dict(files)})) as imitation:
        reach(imitation.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        yield imitation
    huggingface_hub.close_session()


def reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the library is imported."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "".join(template[1:]))


def go_offline(hub: HubImitation, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a request is a failure of the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()


def test_folder_is_itself_when_it_exists(hub: HubImitation, tmp_path: Path) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert resolve_model(tmp_path / "org" / "tiny") == tmp_path / "org" / "tiny"
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model("nano-text") == EMBEDDED["nano-text"]
    assert hub.log == []


def test_folder_wins_when_the_hub_has_its_name_too(
    hub: HubImitation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/tiny") == Path("org/tiny")
    assert hub.log == []


def test_only_what_is_read_is_downloaded_when_the_hub_has_more(
    hub: HubImitation, files: dict[str, bytes]
) -> None:
    folder = resolve_model("org/tiny")
    assert sorted(path.name for path in folder.iterdir()) == READ
    assert all((folder / name).read_bytes() == files[name] for name in READ)
    assert sorted(hub.fetched()) == READ
    hub.log.clear()
    assert resolve_model("org/tiny@main") == folder == resolve_model(f"org/tiny@{COMMIT}")
    assert hub.fetched() == []


def test_pickles_are_downloaded_when_there_is_nothing_better(hub: HubImitation) -> None:
    del hub.repos["org/tiny"][WEIGHTS]
    folder = resolve_model("org/tiny")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["pytorch_model.bin", *READ[:1], *READ[2:]]
    )


def test_weights_stay_on_the_hub_when_only_the_tokenizer_is_wanted(hub: HubImitation) -> None:
    folder = resolve_model("org/tiny", weights=False)
    assert sorted(path.name for path in folder.iterdir()) == [READ[0], *READ[2:]]
    assert (resolve_model("org/tiny") / WEIGHTS).is_file()


def test_model_answers_when_it_is_named_as_on_the_hub(
    hub: HubImitation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="glm_core")
    model, _ = load_model("org/tiny")
    expected = tiny_model("glm-4-9b", vocab_size=300)
    assert torch.equal(model.logits(model(IDS)), expected.logits(expected(IDS)))
    assert "org/tiny on cpu: " in caplog.text


def test_download_goes_on_when_the_connection_breaks(
    hub: HubImitation, files: dict[str, bytes]
) -> None:
    hub.breaks_after[WEIGHTS] = [15_000, 7_000]
    folder = resolve_model("org/tiny")
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.ranges(WEIGHTS) == [None, "bytes=15000-", "bytes=22000-"]


def break_off(hub: HubImitation, after: int) -> None:
    """A download that stops after some bytes, as if the program had been killed."""

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    hub.breaks_after[WEIGHTS] = [after]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            resolve_model("org/tiny")


def test_download_goes_on_when_the_program_was_stopped(
    hub: HubImitation, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="glm_core")
    break_off(hub, 20_000)
    hub.log.clear()
    folder = resolve_model("org/tiny")
    assert hub.ranges(WEIGHTS) == ["bytes=20000-"]
    assert (folder / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert "going on after 0.0 of 0.1 MB" in caplog.text
    left = [path.name for path in folder.parents[1].rglob("*.incomplete")]
    assert left == []


def test_damaged_download_is_deleted_when_its_parts_do_not_fit(hub: HubImitation) -> None:
    break_off(hub, 20_000)
    hub.corrupts.add(WEIGHTS)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS} arrived damaged .*deleted: try again"):
        resolve_model("org/tiny")
    hub.corrupts.clear()
    assert (resolve_model("org/tiny") / WEIGHTS).is_file()
    assert hub.ranges(WEIGHTS)[-1] is None


def test_download_starts_again_when_the_part_is_too_long(
    hub: HubImitation, files: dict[str, bytes]
) -> None:
    break_off(hub, 20_000)
    (part,) = Path(constants.HF_HUB_CACHE).rglob("*.incomplete")
    part.write_bytes(bytes(len(files[WEIGHTS]) + 1))
    assert (resolve_model("org/tiny") / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_error_says_that_it_goes_on_when_the_connection_stays_broken(hub: HubImitation) -> None:
    hub.breaks_after[WEIGHTS] = [10] + [0] * 20
    with pytest.raises(CheckpointError, match=r"org/tiny was interrupted .*try again, and it goes"):
        resolve_model("org/tiny")


def test_error_names_the_file_when_the_hub_fails(hub: HubImitation) -> None:
    hub.refuses.add(WEIGHTS)
    with pytest.raises(CheckpointError, match=r"refused a file of org/tiny .*500.*try again"):
        resolve_model("org/tiny")


def test_cache_is_enough_when_offline(
    hub: HubImitation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = resolve_model("org/tiny")
    go_offline(hub, monkeypatch)
    caplog.set_level(logging.INFO, logger="glm_core")
    assert resolve_model("org/tiny") == folder == resolve_model(f"org/tiny@{COMMIT}")
    load_model("org/tiny")
    assert "org/tiny is taken from the cache" in caplog.text and hub.log == []


def test_cache_is_enough_when_offline_and_weights_are_pickles(
    hub: HubImitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    del hub.repos["org/tiny"][WEIGHTS]
    folder = resolve_model("org/tiny")
    go_offline(hub, monkeypatch)
    assert resolve_model("org/tiny") == folder


def test_cache_is_enough_when_the_network_is_gone(
    hub: HubImitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_model("org/tiny")
    reach("http://127.0.0.1:9", monkeypatch)  # nobody listens
    assert resolve_model("org/tiny") == folder
    with pytest.raises(CheckpointError, match="org/other.*the hub cannot be reached: connect to"):
        resolve_model("org/other")


def test_error_says_what_to_do_when_offline_and_not_in_the_cache(
    hub: HubImitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_model("org/tiny", weights=False)
    go_offline(hub, monkeypatch)
    assert resolve_model("org/tiny", weights=False).is_dir()
    message = r"no folder {0}, not all files of {0} are in the cache .*HF_HUB_OFFLINE=1.*unset it"
    for name in ("org/tiny", "org/other"):
        with pytest.raises(CheckpointError, match=message.format(name)):
            resolve_model(name)
    assert hub.log == []


def test_error_says_what_to_do_when_the_hub_has_no_such_model(hub: HubImitation) -> None:
    with pytest.raises(
        CheckpointError, match=r"no folder org/tny, and the hub knows no .*spelling"
    ):
        resolve_model("org/tny")
    with pytest.raises(CheckpointError, match=r"org/tiny@v9: the hub has org/tiny, but not this"):
        resolve_model("org/tiny@v9")
    hub.gated.add("org/tiny")
    with pytest.raises(
        CheckpointError, match=r"org/tiny is only for those who accepted .*HF_TOKEN"
    ):
        resolve_model("org/tiny")


@pytest.mark.parametrize(
    "name", ["absent", "a/b/c", "./org/tiny", "/org/tiny", "org/ti ny", "~/no"]
)
def test_network_is_left_alone_when_the_name_cannot_be_on_the_hub(
    hub: HubImitation, name: str
) -> None:
    with pytest.raises(CheckpointError, match="does not exist. Give a folder .*nano-text, .*; or"):
        resolve_model(name)
    with pytest.raises(CheckpointError, match="no model in .*tiny: the folder does not exist"):
        resolve_model(Path("org/tiny"))
    assert hub.log == []


def test_error_says_so_when_a_file_is_named(hub: HubImitation, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file: give the folder it is in"):
        resolve_model(str(tmp_path / WEIGHTS))


def test_error_says_how_to_get_it_when_named_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "nano-text", tmp_path / "nano")
    with pytest.raises(CheckpointError, match="make nano"):
        resolve_model("nano-text")


def test_environment_is_heeded_when_it_names_the_hub(hub: HubImitation, tmp_path: Path) -> None:
    """Another process, with the variables that people set."""
    code = "from glm_core.checkpoint.hub import resolve_model; print(resolve_model('org/tiny'))"
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(rf"{tmp_path}/home/hub/models--org--tiny/snapshots/{COMMIT}\n", run.stdout)
