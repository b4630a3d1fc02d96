"""Keys and the names by which a server may be called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from glm_core.serve.auth import read_keys
from glm_core.serve.config import ServeConfig
from glm_core.serve.models import ServedModel

from .conftest import Running, running

KEYS = ("first-secret", "other-secret")
ORIGIN = "https://example.org"


@pytest.fixture(scope="module")
def guarded(models: list[ServedModel]) -> Iterator[Running]:
    config = ServeConfig(
        port=0, api_keys=KEYS, cors_origins=(ORIGIN,), allowed_hosts=("my-machine",)
    )
    with running(models, config) as started:
        yield started


def test_client_is_let_in_when_it_has_a_key(guarded: Running) -> None:
    for key in KEYS:
        with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key) as client:
            assert client.models.list().data
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="third-secret") as client:
        with pytest.raises(openai.AuthenticationError, match="missing or wrong") as caught:
            client.models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    "header", [None, "Basic first-secret", "Bearer", "first-secret", "Bearer first", "Bearer é"]
)
def test_request_is_refused_when_the_header_is_another(
    guarded: Running, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header.encode()}
    reply = httpx2.get(f"{guarded.url}/v1/models", headers=headers)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/metrics", "/v1/nothing", "/docs/../metrics", "/health/x"])
def test_key_is_needed_for_what_is_not_public(guarded: Running, path: str) -> None:
    assert httpx2.get(guarded.url + path).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/docs", "/openapi.json"])
def test_key_is_not_needed_for_what_is_public(guarded: Running, path: str) -> None:
    assert httpx2.get(guarded.url + path).status_code == 200


def test_page_of_an_allowed_origin_may_ask(guarded: Running, http: httpx2.Client) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    url = f"{guarded.url}/v1/chat/completions"
    assert httpx2.options(url, headers=asked).headers["Access-Control-Allow-Origin"] == ORIGIN
    other = httpx2.options(url, headers=asked | {"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    default = http.options("/v1/chat/completions", headers=asked)
    assert "Access-Control-Allow-Origin" not in default.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", ""])
def test_request_is_refused_when_it_calls_the_server_by_another_name(
    http: httpx2.Client, host: str
) -> None:
    reply = http.get("/v1/models", headers={"Host": host})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "host_not_allowed")


def test_names_of_this_machine_are_known(http: httpx2.Client, guarded: Running) -> None:
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80"):
        assert http.get("/health", headers={"Host": host}).status_code == 200
    url = f"{guarded.url}/health"
    assert httpx2.get(url, headers={"Host": "my-machine:80"}).status_code == 200


def test_keys_are_read_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# for editors\nfirst-secret\n\n other-secret \n")
    assert read_keys(str(file), {}) == KEYS
    assert read_keys(None, {"GLM_API_KEY": "env-secret"}) == ("env-secret",)
    assert read_keys(None, {}) == ()
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no key"):
        read_keys(str(file), {})
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(str(tmp_path / "missing"), {})


def test_key_is_needed_to_send_something_to_a_public_path(guarded: Running) -> None:
    assert httpx2.get(guarded.url + "/").status_code == 200
    assert httpx2.post(guarded.url + "/", json={}).status_code == 401
