"""The allocator setting."""

from __future__ import annotations

import platform

import glm_kernels


def test_freed_memory_is_kept_when_the_c_library_is_glibc():
    assert glm_kernels.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_allocator_is_left_alone_when_the_c_library_is_another(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not glm_kernels.keep_freed_memory()
