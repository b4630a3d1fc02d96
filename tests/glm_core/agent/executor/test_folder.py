"""Names, links and odd files in a folder whose content is not trusted."""

import os

import pytest

from glm_core.agent.executor import ExecutorLimits, FileEntry
from glm_core.agent.executor.folder import list_files, read, write

LIMITS = ExecutorLimits(file_bytes=1 << 20, disk_bytes=1 << 20)


@pytest.fixture
def root(tmp_path):
    """A descriptor of a folder, beside a secret."""
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    descriptor = os.open(tmp_path / "work", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_file_is_read_back_when_it_was_written_into_new_folders(root):
    write(root, "a/b/c.txt", b"text", LIMITS)
    write(root, "a/b/c.txt", b"new", LIMITS)
    assert read(root, "a/b/c.txt", LIMITS) == b"new"
    assert list_files(root) == [FileEntry("a/b/c.txt", 3)]


def test_code_may_change_a_file_when_it_was_uploaded_under_a_tight_umask(root, tmp_path):
    before = os.umask(0o077)
    write(root, "folder/file", b"", LIMITS)
    os.umask(before)
    assert (tmp_path / "work/folder").stat().st_mode & 0o777 == 0o777
    assert (tmp_path / "work/folder/file").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("name", ["", ".", "../secret", "a/../../secret", "/etc/passwd", "a\0b"])
def test_name_is_refused_when_it_leads_out_of_the_folder(root, name):
    for call in (lambda: read(root, name, LIMITS), lambda: write(root, name, b"", LIMITS)):
        with pytest.raises(ValueError, match="is no name inside the work folder"):
            call()


def test_link_is_refused_when_it_leads_to_a_file_or_a_folder(root, tmp_path):
    (tmp_path / "work/link").symlink_to(tmp_path / "secret")
    (tmp_path / "work/folder").symlink_to(tmp_path)
    for name in ("link", "folder/secret"):
        with pytest.raises(ValueError, match="passes through a link or a file"):
            read(root, name, LIMITS)
        with pytest.raises(ValueError, match="passes through a link or a file"):
            write(root, name, b"x", LIMITS)
    assert list_files(root) == []
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_pipe_is_refused_when_reading_it_would_wait(root, tmp_path):
    os.mkfifo(tmp_path / "work/pipe")
    with pytest.raises(ValueError, match="is no regular file"):
        read(root, "pipe", LIMITS)
    with pytest.raises(ValueError, match="pipe"):
        write(root, "pipe", b"x", LIMITS)


def test_missing_file_is_named_when_it_is_read(root):
    with pytest.raises(ValueError, match="'gone.txt' in the work folder: No such file"):
        read(root, "gone.txt", LIMITS)


def test_sparse_file_is_refused_when_it_claims_to_be_large(root, tmp_path):
    with open(tmp_path / "work/sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="more than file_bytes=1048576"):
        read(root, "sparse", LIMITS)


def test_upload_is_refused_when_it_is_larger_than_a_file_may_be(root):
    with pytest.raises(ValueError, match="more than file_bytes=1048576"):
        write(root, "large", bytes((1 << 20) + 1), LIMITS)


def test_listing_ends_when_folders_are_nested_without_end(root, tmp_path):
    folder = tmp_path / "work"
    for _ in range(40):
        folder = folder / "d"
    os.makedirs(folder)
    (folder / "deep").touch()
    assert list_files(root) == []
