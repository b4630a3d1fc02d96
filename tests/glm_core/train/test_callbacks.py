from __future__ import annotations

import builtins
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from glm_core.train.callbacks import format_seconds, progress_line
from glm_core.train.loss_curve import draw_loss_curve
from glm_core.train.metrics_log import append_metrics

ROW = {
    "step": 120,
    "loss": 2.3141,
    "lr": 3e-4,
    "grad_norm": 0.912,
    "tokens_per_second": 41203.4,
    "memory_bytes": 3.1 * 2**30,
    "eta_seconds": 745.0,
}


def test_line_reads_as_agreed_when_formatted() -> None:
    assert progress_line(ROW, 1000) == (
        "step 120/1000 loss 2.314 lr 3.0e-04 grad_norm 0.91 tok/s 41,203 mem 3.1GiB eta 12m"
    )
    assert "loss 2.314 eval_loss 2.500 lr" in progress_line(ROW | {"eval_loss": 2.5}, 1000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59, "59s"), (60, "1m"), (3600, "1h00m"), (11100, "3h05m"), (187200, "2d04h")],
)
def test_duration_is_short_when_formatted(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_no_picture_but_a_warning_when_matplotlib_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append_metrics(tmp_path / "m", {"step": 1, "loss": 2.0})
    real_import = builtins.__import__

    def no_matplotlib(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    assert not draw_loss_curve(tmp_path / "m", tmp_path / "loss.png")
    assert "pip install matplotlib" in caplog.text


def test_no_picture_but_a_warning_when_there_are_no_losses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not draw_loss_curve(tmp_path / "m", tmp_path / "loss.png")
    assert "has no losses" in caplog.text


def test_picture_is_drawn_when_some_losses_are_missing(tmp_path: Path) -> None:
    for step, loss in ((1, 2.0), (2, float("nan")), (3, 1.0)):
        append_metrics(tmp_path / "m", {"step": step, "loss": loss, "eval_loss": loss + 1})
    assert draw_loss_curve(tmp_path / "m", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_events_are_written_when_tensorboard_is_on(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tiny.tiny_trainer(tmp_path, tensorboard=True, max_steps=2).fit()
    assert list((tmp_path / "tensorboard").glob("events.out.*"))


def test_error_names_package_when_tensorboard_is_missing(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="trainer.tensorboard needs the package tensorboard"):
        tiny.tiny_trainer(tmp_path, tensorboard=True).fit()
