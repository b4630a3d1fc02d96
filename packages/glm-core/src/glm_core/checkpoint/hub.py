"""The folder that a model's name stands for: on this machine, in the package, or on the hub.

A model of the Hugging Face hub lies in that library's own cache, where other programs find it too.
Only data is downloaded: weights, configuration and vocabularies, never code.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glm_core.checkpoint.files import CheckpointError
from glm_core.checkpoint.hub_files import download_file
from glm_core.checkpoint.pretrained import EMBEDDED

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_SMALL = ["*.json", "*.model", "*.txt", "*.tiktoken"]
"""Configuration, index files and vocabularies."""
_SAFETENSORS, _PICKLES = "*.safetensors", "*.bin"
_IGNORED = ["*/*", "training_args.bin", "optimizer.bin", "scheduler.bin"]
"""What is no part of a model: sub-folders in other formats, and the state of a training."""
_LARGE = 1 << 24
"""Bytes from which on a file is worth resuming."""


def resolve_model(name_or_folder: Path | str, weights: bool = True) -> Path:
    """The folder that a model's name or path stands for.

    A folder and a model of the package are found without the network. A name on the hub is looked
    up there, and what is not in the cache yet is downloaded; an interrupted download goes on where
    it stopped. With HF_HUB_OFFLINE=1, or without a network, the cache alone is used.

    Args:
        name_or_folder: a folder, a name that comes with the package, or "org/name" or
            "org/name@revision" on the hub.
        weights: False leaves the weights on the hub: enough for the tokenizer.

    Raises:
        CheckpointError: there is no such model, or it cannot be downloaded; says what to do.
    """
    name = str(name_or_folder)
    folder = EMBEDDED.get(name, Path(name_or_folder).expanduser())
    if folder.is_dir():
        return folder
    if name in EMBEDDED:
        raise CheckpointError(
            f"{name} is not part of this installation ({folder} is missing): install the"
            " package again, or train it with `make nano`"
        )
    match = None if isinstance(name_or_folder, Path) else _HUB_NAME.fullmatch(name)
    if match is None:
        what = "is a file: give the folder it is in" if folder.is_file() else "does not exist"
        raise CheckpointError(
            f"no model in {folder}: the folder {what}. Give a folder that holds a model, as the "
            f"`model` folder of a finished `glm train` run does; a name: {', '.join(EMBEDDED)}; or "
            "a name on the Hugging Face hub, such as org/name"
        )
    with _explained(name, match[1]):
        return _from_hub(match[1], match[2], weights)


def _from_hub(repo: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError

    wanted = [*_SMALL, _SAFETENSORS, _PICKLES] if weights else _SMALL
    try:
        listing = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=_IGNORED,
            tqdm_class=_no_bar(),
            dry_run=True,
        )
    except (
        DryRunError,
        LocalEntryNotFoundError,
    ) as error:  # the hub did not answer, or answered no
        return _from_cache(repo, revision, weights, error.__cause__)
    names = {file.filename for file in listing}
    if any(name.endswith(".safetensors") for name in names):
        names = {name for name in names if not name.endswith(".bin")}
    for file in listing:
        if file.filename in names and file.will_download and (file.file_size or 0) >= _LARGE:
            download_file(repo, file.filename, file.commit_hash)
    return Path(
        snapshot_download(
            repo, revision=revision, allow_patterns=sorted(names), tqdm_class=_no_bar()
        )
    )


def _from_cache(
    repo: str, revision: str | None, weights: bool, reason: BaseException | None
) -> Path:
    """The folder in the cache, if everything is there.

    Raises:
        LocalEntryNotFoundError: something is missing, and the hub has not given a better reason.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    kinds = [[_SAFETENSORS], [_PICKLES]] if weights else [[]]
    for kind in kinds:
        try:
            folder = Path(
                snapshot_download(
                    repo,
                    revision=revision,
                    allow_patterns=[*_SMALL, *kind],
                    ignore_patterns=_IGNORED,
                    local_files_only=True,
                )
            )
        except LocalEntryNotFoundError as error:
            if isinstance(reason, RepositoryNotFoundError):
                raise reason from None
            raise error from reason
        if not kind or any(folder.glob(kind[0])):
            logger.info("the hub does not answer: %s is taken from the cache, %s", repo, folder)
            return folder
    raise CheckpointError(
        f"{repo} in the cache, {folder}, has no weights: delete it there, and load it again with a "
        "network"
    )


@contextmanager
def _explained(name: str, repo: str) -> Iterator[None]:
    """Turns the errors of the hub's library into one that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except CheckpointError:
        raise
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{repo} is only for those who accepted its conditions: do so on its page on the hub, "
            "then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"there is no folder {name}, and the hub knows no model {repo}: check the spelling; if "
            "it is private, log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the hub has {repo}, but not this revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(_not_in_cache(name, repo)) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(
            f"the hub refused a file of {repo} ({_first_line(error)}): try again; what has been "
            "downloaded is kept"
        ) from error
    except Exception as error:
        if not _is_of_network(error):
            raise
        raise CheckpointError(
            f"the download of {repo} was interrupted ({_first_line(error)}): try again, and it "
            "goes on where it stopped"
        ) from error


def _not_in_cache(name: str, repo: str) -> str:
    from huggingface_hub import constants

    why = (
        "HF_HUB_OFFLINE=1 forbids to download them: unset it"
        if constants.HF_HUB_OFFLINE
        else "the hub cannot be reached: connect to the network"
    )
    return (
        f"there is no folder {name}, not all files of {repo} are in the cache "
        f"({constants.HF_HUB_CACHE}), and {why}, or give a folder that holds the model"
    )


def _is_of_network(error: Exception) -> bool:
    """Whether the connection failed; the library's HTTP client differs between its versions."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return type(error).__module__.partition(".")[0] in ("httpx2", "httpx2", "httpcore", "requests")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _no_bar() -> type:
    """A progress bar that is never shown: what takes long logs its own progress."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    base: Any = tqdm

    class NoBar(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))

    return NoBar
