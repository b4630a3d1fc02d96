"""Settings that a server refuses to start with."""

from __future__ import annotations

from typing import Any

import pytest

from glm_core.serve.config import ServeConfig


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.org"])
def test_address_is_refused_when_others_could_reach_it_without_a_key(host: str) -> None:
    with pytest.raises(ValueError, match="give an API key .GLM_API_KEY or --api-key-file"):
        ServeConfig(host=host)
    assert not ServeConfig(host=host, api_keys=("long-secret",)).is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_address_needs_no_key_when_only_this_machine_reaches_it(host: str) -> None:
    assert ServeConfig(host=host).is_local


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0"),
        ({"request_timeout_s": 0}, "above 0 seconds"),
        ({"api_keys": ("short",)}, "8 printable characters"),
        ({"api_keys": ("has a space",)}, "8 printable characters"),
    ],
)
def test_setting_is_refused_when_it_is_out_of_bounds(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ServeConfig(**changes)
