from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path

import pytest
import torch

from codegeex.fim import read_format
from codegeex.testing import tiny_code_model
from codegeex.training.run import TRAIN, code_loader, prepared_code, train
from glm_core.checkpoint.loading import load_model
from glm_core.checkpoint.pretrained import save_pretrained
from glm_core.data.batch import IGNORE
from glm_core.infer.engine import Engine
from glm_core.train.compose import compose_config
from glm_core.train.metrics_log import read_metrics

TINY = [
    "experiment=debug",
    "data.seq_length=64",
    "data.vocab_size=600",
    "data.heldout_fraction=0.2",
    "model.vocab_size=600",
    "model.hidden_size=32",
    "model.head_dim=16",
    "model.ffn_hidden_size=32",
    "trainer.max_steps=4",
    "trainer.micro_batch_size=2",
    "trainer.global_batch_size=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=2",
    "trainer.eval_every=2",
    "trainer.eval_batches=1",
    "trainer.num_threads=1",
]


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    """A folder of real modules."""
    folder = tmp_path_factory.mktemp("code")
    for module in (inspect, json, textwrap):
        source = inspect.getsource(module)
        (folder / f"{module.__name__}.py").write_text(source)
        half = source[: len(source) // 2].rpartition("\n\n\n")[0]
        (folder / f"{module.__name__}_again.py").write_text("\n# another\n" + half.swapcase())
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return f"data.cache_dir={tmp_path_factory.mktemp('cache')}"


def config_of(run_dir: Path, source: Path, *more: str):
    given = [*TINY, f"data.source={source}", f"run_dir={run_dir}", *more]
    return compose_config(TRAIN, given)


def test_model_is_exported_with_its_format_when_trained(tmp_path, code, cache):
    result = train(config_of(tmp_path / "run", code, cache, "data.fim=psm"))
    assert result.finished
    model, tokenizer = load_model(tmp_path / "run" / "model", progress=False)
    assert model.config.hidden_size == 32
    format = read_format(tmp_path / "run" / "model", tokenizer)
    assert format is not None and format.name == "psm"
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert {"eval_loss", "eval_loss_left_to_right", "eval_loss_holes"} <= set(last)


def test_weights_are_the_same_when_stopped_and_resumed(tmp_path, code, cache):
    more = (cache, "optim.schedule=constant", "optim.optimizer=muon")
    for run, steps in (("straight", 4), ("stopped", 2), ("stopped", 4)):
        train(config_of(tmp_path / run, code, *more, f"trainer.max_steps={steps}"))
    resumed, _ = load_model(tmp_path / "stopped" / "model", progress=False)
    expected, _ = load_model(tmp_path / "straight" / "model", progress=False)
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    save_pretrained(*tiny_code_model(), folder)
    return folder


def test_only_added_weights_are_learnt_when_lora_is_on(tmp_path, code, cache, base):
    lora = ["lora=r16", "lora.rank=2", f"init_from={base}", "optim.lr=0.05"]
    result = train(config_of(tmp_path / "run", code, cache, *lora))
    assert result.finished
    before, tokenizer = load_model(base, progress=False)
    after, _ = load_model(tmp_path / "run" / "model", progress=False)
    states = before.state_dict(), after.state_dict()
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    kinds = {name.split(".")[-2] for name in changed}
    assert kinds == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    with Engine(before, tokenizer) as engine:
        engine.add_adapter("mine", tmp_path / "run" / "adapter")
        assert engine.adapters == ("mine",)


def test_all_weights_move_when_a_model_goes_on_without_lora(tmp_path, code, cache, base):
    train(config_of(tmp_path / "run", code, cache, f"init_from={base}"))
    before, _ = load_model(base, progress=False)
    after, _ = load_model(tmp_path / "run" / "model", progress=False)
    assert before.config == after.config
    assert not any(
        torch.equal(value, after.state_dict()[name])
        for name, value in before.state_dict().items()
        if value.ndim == 2
    )


def test_prompts_are_read_and_not_learnt_when_records_have_them(tmp_path, cache):
    lines = [
        {"prompt": f"# add {i} to a number, please, and give the result back\n", "code": _body(i)}
        for i in range(40)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = config_of(tmp_path / "run", path, cache, "data.seq_length=128")
    prepared = prepared_code(config)
    batch = next(iter(code_loader(config.data, prepared, 4)))
    for row, labels in zip(batch.input_ids, batch.labels, strict=True):
        read = prepared.tokenizer.decode(row[labels == IGNORE].tolist())
        learnt = prepared.tokenizer.decode(labels[labels != IGNORE].tolist())
        assert "please" in read and "please" not in learnt
        assert "def add" in learnt
    assert train(config).finished


def _body(number: int) -> str:
    return f"def add_{number}(value):\n    return value + {number}\n"


def test_error_says_what_to_do_when_the_tokenizer_is_another(tmp_path, code, cache, base):
    from codegeex.data.config import PrepareConfig
    from codegeex.data.prepare import prepare_code

    out = tmp_path / "prepared"
    prepare_code(PrepareConfig(sources=[str(code)], out=str(out), vocab_size=600))
    with pytest.raises(ValueError, match="another tokenizer than that of .*: prepare it with"):
        train(config_of(tmp_path / "run", out, cache, f"init_from={base}"))


def test_error_names_the_setting_when_no_source_is_given(tmp_path, cache):
    with pytest.raises(ValueError, match="data.source is empty: name your code"):
        train(config_of(tmp_path / "run", Path(""), cache, "data.source="))
