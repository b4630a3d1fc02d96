"""The flags of `glm serve`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import pytest

from glm_core.agent.executor import SandboxUnavailable
from glm_core.agent.executor.choose import KINDS
from glm_core.checkpoint.loading import load_model
from glm_core.cli import main
from glm_core.commands import serve
from glm_core.infer import SamplingConfig, layout_for
from glm_core.infer.blanks import continuation_prompt
from glm_core.infer.engine import EngineRequest
from glm_core.testing import write_lora


def _parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(["--model", "nano-text", *flags])


def test_default_model_is_served_only_where_none_is_named() -> None:
    parser = argparse.ArgumentParser()
    serve.add_serve_arguments(parser, default="nano-text")
    assert parser.parse_args([]).model == ["nano-text"]
    assert parser.parse_args(["--model", "a", "--model", "b"]).model == ["a", "b"]
    assert parser.parse_args([]).model == ["nano-text"]


def test_models_have_names_of_their_own_or_of_their_paths() -> None:
    given = ["nano-text", "chat=./models/glm-4-9b", "./models/other/", "org/name"]
    assert serve.named_models(given) == {
        "nano-text": "nano-text",
        "chat": "./models/glm-4-9b",
        "other": "./models/other/",
        "name": "org/name",
    }


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (["a", "x/a"], "two models are called a"),
        (["=path"], "write NAME=PATH"),
        (["name="], "write NAME=PATH"),
    ],
)
def test_names_are_refused_when_they_name_no_model(given: list[str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        serve.named_models(given)


def test_adapters_belong_to_models() -> None:
    assert serve.named_adapters(["x=./x"], ["a"]) == {"a": {"x": "./x"}}
    given = ["a:x=./x", "b:x=./y", "a:z=./z"]
    assert serve.named_adapters(given, ["a", "b"]) == {
        "a": {"x": "./x", "z": "./z"},
        "b": {"x": "./y"},
    }


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (["x=./x"], "write NAME=FOLDER"),
        (["c:x=./x"], "one of the models a, b"),
        (["a:x"], "write NAME=FOLDER"),
        (["a:=./x"], "write NAME=FOLDER"),
        (["a:x=./x", "a:x=./y"], "a has two called x"),
    ],
)
def test_adapters_are_refused_when_they_belong_nowhere(given: list[str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        serve.named_adapters(given, ["a", "b"])


def test_model_is_served_once_more_with_each_adapter(tmp_path: Path) -> None:
    model, tokenizer = load_model("nano-text", progress=False)
    name = "layers.0.attention.dense"
    outputs, inputs = model.get_submodule(name).weight.shape
    write_lora(tmp_path, {name: (4, inputs, outputs)}, seed=1)
    args = _parsed("--cache-memory", "64MB")
    args.model = "nano-text"
    prompt = continuation_prompt("The with statement", tokenizer, layout_for(model.config))
    with serve.opened(
        args, "nano", {"tuned": str(tmp_path)}, serve.engine_settings(args)
    ) as served:
        assert [(one.name, one.adapter) for one in served] == [
            ("nano", ""),
            ("nano:tuned", "tuned"),
        ]
        texts = [
            one.engine.submit(
                EngineRequest(prompt=prompt, sampling=SamplingConfig(), adapter=one.adapter)
            ).outcome()
            for one in served
        ]
    assert texts[0].choices[0][0].text != texts[1].choices[0][0].text


def test_flags_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLM_API_KEY", raising=False)
    file = tmp_path / "keys"
    file.write_text("long-secret\n")
    args = _parsed(
        *("--host", "0.0.0.0", "--port", "0", "--api-key-file", str(file)),
        *("--cors-origin", "https://a.example", "--cors-origin", "https://b.example"),
        *("--max-body", "1MiB", "--request-timeout", "5", "--drain-timeout", "1"),
        *("--max-running", "4", "--max-queued", "2", "--cache-memory", "1MiB", "--log-prompts"),
    )
    config = serve.serve_config(args)
    assert config.api_keys == ("long-secret",) and not config.is_local
    assert config.cors_origins == ("https://a.example", "https://b.example")
    assert (config.max_body_bytes, config.request_timeout_s) == (2**20, 5.0)
    assert config.drain_timeout_s == 1.0 and config.log_prompts
    engine = serve.engine_settings(args)
    assert (engine.max_running, engine.max_queued, engine.cache_bytes) == (4, 2, 2**20)
    plain = serve.serve_config(_parsed())
    assert (plain.host, plain.port, plain.log_prompts) == ("127.0.0.1", 8000, False)


def test_server_does_not_start_when_others_could_reach_it_without_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLM_API_KEY", raising=False)
    assert main(["serve", "--model", "nano-text", "--host", "0.0.0.0"]) == 2
    assert "give an API key (GLM_API_KEY or --api-key-file)" in capsys.readouterr().err


def test_server_does_not_start_when_a_model_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "missing")
    assert main(["serve", "--model", path, "--port", "0"]) == 2
    assert "missing" in capsys.readouterr().err


def test_page_runs_no_code_when_nobody_asked_for_it() -> None:
    with ExitStack() as stack:
        workbench = serve.opened_workbench(_parsed(), stack)
        assert workbench.interpreters is None
        assert workbench.tools == ()


def test_page_runs_code_when_a_sandbox_works(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []

    class Fake:
        def __init__(self, kind: str) -> None:
            kinds.append(kind)

        def close(self) -> None:
            kinds.append("closed")

    monkeypatch.setattr("glm_core.agent.executor.executor", Fake)
    with ExitStack() as stack:
        workbench = serve.opened_workbench(_parsed("--code-interpreter"), stack)
        assert workbench.interpreters is not None
        assert kinds == ["auto", "closed"]  # tried before anybody asks
        with workbench.interpreters.using("s"):
            pass
    assert kinds == ["auto", "closed", "auto", "closed"]


def test_server_does_not_start_when_no_sandbox_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str) -> None:
        raise SandboxUnavailable("no sandbox works here")

    monkeypatch.setattr("glm_core.agent.executor.executor", refuse)
    with ExitStack() as stack, pytest.raises(ValueError, match="--code-interpreter: no sandbox"):
        serve.opened_workbench(_parsed("--code-interpreter"), stack)


def test_server_does_not_start_when_mcp_servers_cannot_be_read(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(ValueError, match="none.json"):
        serve.opened_workbench(_parsed("--mcp", str(tmp_path / "none.json")), stack)


def test_every_sandbox_can_be_named() -> None:
    assert serve.INTERPRETERS == KINDS
