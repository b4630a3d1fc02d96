from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from glm_core.train.callbacks import Callback
from glm_core.train.optim import OptimConfig

SCRIPT = Path(__file__).with_name("tiny_run.py")


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def train_in_child(run_dir: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(run_dir), *settings],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "optimizer.safetensors"):
        (folder_a,), (folder_b,) = (sorted((d / "checkpoints").glob("*8")) for d in (a, b))
        ours, theirs = load_file(folder_a / name), load_file(folder_b / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    timing = {"tokens_per_second", "flops_per_second", "memory_bytes", "eta_seconds"}
    strip = [[{k: v for k, v in r.items() if k not in timing} for r in rows(d)] for d in (a, b)]
    assert strip[0] == strip[1]


def test_run_dir_holds_everything_when_finished(tiny: ModuleType, tmp_path: Path) -> None:
    result = tiny.tiny_trainer(tmp_path, max_steps=30, log_every=10, checkpoint_every=10).fit()
    assert result.finished and result.step == 30
    assert [row["step"] for row in rows(tmp_path)] == [1, 10, 20, 30]
    assert all({"step", "loss", "tokens_per_second", "lr"} <= row.keys() for row in rows(tmp_path))
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000020", "step-00000030"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_gradient_is_that_of_one_big_batch_when_accumulated(
    tiny: ModuleType, tmp_path: Path
) -> None:
    weights = []
    for micro in (12, 3, 1):
        task = tiny.TinyTask()
        trainer = tiny.tiny_trainer(
            tmp_path / str(micro), task, micro_batch_size=micro, global_batch_size=12, max_steps=5
        )
        trainer.engine.model.eval()  # no dropout: its pattern depends on the batch's shape
        trainer.fit()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.engine.model.parameters()]))
    # measured worst difference 1.2e-07 after five steps of lr 0.01
    assert (weights[0] - weights[1]).abs().max() < 1e-6
    assert (weights[0] - weights[2]).abs().max() < 1e-6


def test_update_equals_plain_adamw_when_clipped(tiny: ModuleType, tmp_path: Path) -> None:
    optim = OptimConfig(lr=0.01, warmup_steps=0, schedule="constant", weight_decay=0.0)
    trainer = tiny.tiny_trainer(tmp_path, max_steps=3, grad_clip=0.05, optim=optim)
    trainer.engine.model.eval()
    torch.manual_seed(0)
    oracle = tiny.TinyModel().eval()
    oracle.load_state_dict(trainer.engine.model.state_dict())
    adam = torch.optim.AdamW(oracle.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    batches = tiny.batches(0, 4)
    for _ in range(3):
        batch = next(batches)
        loss = torch.nn.functional.cross_entropy(
            oracle(batch.ids).flatten(0, 1), batch.labels.flatten()
        )
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(oracle.parameters(), 0.05)
        adam.step()
    trainer.fit()
    for ours, theirs in zip(trainer.engine.model.parameters(), oracle.parameters(), strict=True):
        # measured worst difference 6e-08
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_weights_are_bit_identical_when_killed_and_run_again(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_num_threads(1)  # as in the child
    settings = {"checkpoint_every": 3, "ema_decay": 0.9}
    killed = train_in_child(
        tmp_path / "killed", *(f"{name}={value}" for name, value in settings.items()), "kill_at=5"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [row["step"] for row in rows(tmp_path / "killed")] == [1, 2, 3, 4, 5]
    with caplog.at_level(logging.INFO):
        tiny.tiny_trainer(tmp_path / "killed", **settings).fit()
    assert "resuming from" in caplog.text and "step-00000003" in caplog.text
    tiny.tiny_trainer(tmp_path / "whole", **settings).fit()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    exported = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "killed")]
    assert exported[0].read_bytes() == exported[1].read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_step_is_finished_and_saved_when_signalled(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    before = signal.getsignal(number)
    with caplog.at_level(logging.INFO):
        result = tiny.tiny_trainer(tmp_path / "stopped", callbacks=[tiny.Kill(4, number)]).fit()
    assert result.step == 4 and not result.finished
    assert "stopped after step 4 of 8" in caplog.text
    assert "run the same command again to resume" in caplog.text
    assert signal.getsignal(number) is before
    assert not (tmp_path / "stopped" / "model").exists()
    assert tiny.tiny_trainer(tmp_path / "stopped").fit().finished
    tiny.tiny_trainer(tmp_path / "whole").fit()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_run_stops_at_once_when_signalled_twice(tiny: ModuleType, tmp_path: Path) -> None:
    twice = [tiny.Kill(4, signal.SIGINT), tiny.Kill(4, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        tiny.tiny_trainer(tmp_path, callbacks=twice).fit()
    assert not list((tmp_path).glob("checkpoints/*"))


def test_nothing_is_trained_again_when_run_is_finished(tiny: ModuleType, tmp_path: Path) -> None:
    first = tiny.tiny_trainer(tmp_path).fit()
    model = (tmp_path / "model" / "model.safetensors").read_bytes()
    task = tiny.TinyTask()
    again = tiny.tiny_trainer(tmp_path, task).fit()
    assert task.calls == 0 and again == first
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == model


def test_rows_match_when_resumed_between_log_lines(tiny: ModuleType, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class StopAfterCheckpoint(Callback):
        def on_log(self, trainer: Any, row: Any) -> None:
            if row["step"] == 6:
                raise Stop

    settings = {"log_every": 3, "checkpoint_every": 4, "max_steps": 8}
    tiny.tiny_trainer(tmp_path / "a", **settings).fit()
    with pytest.raises(Stop):
        tiny.tiny_trainer(tmp_path / "b", callbacks=[StopAfterCheckpoint()], **settings).fit()
    assert [row["step"] for row in rows(tmp_path / "b")] == [1, 3, 6]
    tiny.tiny_trainer(tmp_path / "b", **settings).fit()
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_update_is_skipped_and_logged_when_gradient_is_not_finite(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny.tiny_trainer(tmp_path, tiny.TinyTask(poison=frozenset({4})), max_steps=6)
    with caplog.at_level(logging.WARNING):
        trainer.fit()
    assert "skipped 1 of the last 1 updates: the gradient was not finite" in caplog.text
    assert all(torch.isfinite(p).all() for p in trainer.engine.model.parameters())
    assert rows(tmp_path)[2]["loss"] is None and rows(tmp_path)[3]["loss"] > 0


def test_run_gives_up_when_too_many_updates_are_skipped(tiny: ModuleType, tmp_path: Path) -> None:
    task = tiny.TinyTask(poison=frozenset(range(6, 100)))
    trainer = tiny.tiny_trainer(tmp_path, task, max_steps=20, max_skipped_steps=3)
    with pytest.raises(FloatingPointError, match=r"not finite in 3 updates in a row up to step 6"):
        trainer.fit()


def test_error_names_setting_when_resumed_as_another_run(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.tiny_trainer(tmp_path, identity={"data": {"seq_length": 512}}).fit()
    with pytest.raises(ValueError, match=r"data.seq_length was 512 and is now 256"):
        tiny.tiny_trainer(tmp_path, identity={"data": {"seq_length": 256}}).fit()
    newer = {"data": {"seq_length": 512, "wings": 2}}  # a setting that came later
    assert tiny.tiny_trainer(tmp_path, identity=newer).fit().finished


def test_error_names_checkpoint_when_model_has_another_shape(
    tiny: ModuleType, tmp_path: Path
) -> None:
    tiny.tiny_trainer(tmp_path).fit()
    with pytest.raises(ValueError, match=r"step-00000008 does not fit this run .*layers.2"):
        tiny.tiny_trainer(tmp_path, tiny.TinyTask(layers=3)).fit()


def test_error_names_process_when_run_dir_is_in_use(tiny: ModuleType, tmp_path: Path) -> None:
    class TrainTwice(Callback):
        def on_start(self, trainer: Any) -> None:
            tiny.tiny_trainer(tmp_path).fit()

    with pytest.raises(ValueError, match=rf"in use by another training \(process {os.getpid()}\)"):
        tiny.tiny_trainer(tmp_path, callbacks=[TrainTwice()]).fit()


def test_error_names_run_dir_when_it_cannot_be_written(tiny: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"run_dir .*/run cannot be written \(.*choose"):
        tiny.tiny_trainer(tmp_path / "file" / "run").fit()


def test_error_names_both_steps_when_the_run_is_longer_than_asked(
    tiny: ModuleType, tmp_path: Path
) -> None:
    tiny.tiny_trainer(tmp_path, max_steps=3).fit()
    with pytest.raises(ValueError, match=r"has 3 steps already, more than trainer.max_steps=2"):
        tiny.tiny_trainer(tmp_path, max_steps=2).fit()


def test_error_names_max_steps_when_data_ends(tiny: ModuleType, tmp_path: Path) -> None:
    trainer = tiny.tiny_trainer(tmp_path)
    trainer._loader = lambda start: [next(tiny.batches(0, 2)) for _ in range(5)]
    with pytest.raises(ValueError, match=r"ended after 10 samples, in step 3 of 8.*max_steps=2"):
        trainer.fit()


def test_earlier_checkpoints_stay_when_disk_is_full(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.tiny_trainer(tmp_path, max_steps=4).fit()

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glm_core.checkpoint.store.write_safetensors", full)
    with pytest.raises(OSError, match=r"step 8 .*No space left.*the newest is .*step-00000004"):
        tiny.tiny_trainer(tmp_path, max_steps=8).fit()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_held_out_loss_is_logged_when_eval_every_is_set(tiny: ModuleType, tmp_path: Path) -> None:
    settings = {"eval_every": 4, "log_every": 3, "eval_batches": 2, "ema_decay": 0.5}
    tiny.tiny_trainer(
        tmp_path, eval_loader=lambda: tiny.batches(1000, 2), max_steps=9, **settings
    ).fit()
    with_eval = [row["step"] for row in rows(tmp_path) if "eval_loss" in row]
    assert with_eval == [4, 8, 9]


STARTS = {"again": 1000, "other": 7}


def test_held_out_losses_have_names_when_there_are_several(
    tiny: ModuleType, tmp_path: Path
) -> None:
    tiny.tiny_trainer(
        tmp_path,
        eval_loader=lambda: tiny.batches(1000, 2),
        more_eval_loaders={
            "again": lambda: tiny.batches(1000, 2),
            "other": lambda: tiny.batches(7, 2),
        },
        max_steps=2,
        eval_every=2,
    ).fit()
    row = rows(tmp_path)[-1]
    assert row["eval_loss_again"] == row["eval_loss"] != row["eval_loss_other"]


def test_weights_do_not_change_when_options_are_on(tiny: ModuleType, tmp_path: Path) -> None:
    def train(name: str, **settings: Any) -> list[torch.Tensor]:
        trainer = tiny.tiny_trainer(tmp_path / name, max_steps=3, **settings)
        trainer.fit()
        return [p.detach() for p in trainer.engine.model.parameters()]

    plain = train("plain")
    recomputed = train("recomputed", activation_checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_recomputation_calls_compiled_blocks_when_both_are_on(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake_compile(function: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*inputs: Any) -> Any:
            calls.append(function)
            return function(*inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    tiny.tiny_trainer(
        tmp_path, max_steps=1, compile=True, activation_checkpointing=True, global_batch_size=2
    ).fit()
    assert len(calls) == 4  # two blocks, forward and recomputation
    names = [name for name, _ in tiny.TinyModel().named_parameters()]
    trained = load_file(tmp_path / "model" / "model.safetensors")
    assert set(names) == set(trained)


def test_error_names_option_when_model_has_no_blocks(tiny: ModuleType, tmp_path: Path) -> None:
    class Flat(tiny.TinyTask):  # type: ignore[name-defined, misc]
        def build_model(self) -> torch.nn.Module:
            return torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match="trainer.activation_checkpointing is on, but Linear has"):
        tiny.tiny_trainer(tmp_path, Flat(), activation_checkpointing=True)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_loss_falls_when_precision_is_low(tiny: ModuleType, tmp_path: Path, precision: str) -> None:
    settings = {"precision": precision, "max_steps": 40, "log_every": 20}
    tiny.tiny_trainer(tmp_path, optim=OptimConfig(lr=0.03, warmup_steps=2), **settings).fit()
    assert rows(tmp_path)[-1]["loss"] < 0.9 * rows(tmp_path)[0]["loss"]
